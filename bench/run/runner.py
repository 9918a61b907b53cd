"""Make what is missing: tasks go to an engine as their inputs are sealed, and records come back."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter, deque

from bench import Paused, Refused, UserError
from bench.recipes import Work, inputs
from bench.run.job import Counts, Engine, Events, Job, Lost, commit_of, gather, provenance, release, share_of, together
from bench.store.cost import Rates
from bench.store.disk import claim, read_part, writing
from bench.store.plan import Plan, plan
from bench.store.records import Store
from bench.store.tasks import Done, Settings, Task, shards


def run(plan: Plan, settings: Settings, store: Store, engine: Engine, events: Events, rates: Rates) -> Counts:
    """Do all of the plan's missing work; Paused if asked to stop, whatever a task raises otherwise.

    What is finished stays: records are sealed as soon as their last shard is there, and the
    shards of unfinished records are found by the next run. Several runs may share a store: what
    another one sealed meanwhile is used, and weights that it is training are waited for.
    """
    runner = Runner(settings, store, engine, events, rates, plan.fresh)
    try:
        return runner.go(plan)
    finally:
        rates.save()


class Runner:
    """The state of one run."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        engine: Engine,
        events: Events,
        rates: Rates,
        fresh: frozenset[str] = frozenset(),
    ) -> None:
        self.settings, self.store, self.engine, self.events, self.rates = settings, store, engine, events, rates
        self.fresh = fresh
        self.jobs: dict[str, Job] = {}
        self.ready: deque[Task] = deque()
        self.startable: deque[Work] = deque()
        self.waiting: dict[str, set[str]] = {}
        self.dependents: dict[str, list[Work]] = {}
        self.sound: dict[str, str] = {}
        self.losses: Counter[str] = Counter()
        self.refused: dict[str, Refused] = {}
        self.records = self.tasks = self.reused = self.running = 0
        self.commit = commit_of(settings.root)

    def go(self, plan: Plan) -> Counts:
        """Start what can be started, submit what is ready, seal what is finished, until all is made."""
        self.await_all(plan.order)
        try:
            return self._go()
        finally:  # whatever ended it, the next run of this process may train the same weights
            for job in self.jobs.values():
                release(job)

    def _go(self) -> Counts:
        paused: Paused | None = None
        while self.startable or self.ready or self.running:
            taken = []
            while self.startable and len(self.ready) < self.engine.slots and not paused:
                recipe = self.startable.popleft()
                if not self.start(recipe):
                    taken.append(recipe)
            self.startable.extend(taken)
            stop = self.submit(paused)
            if stop and not self.running:
                raise paused or Paused("stopped between shards")
            if self.running:
                done = None
                try:
                    done = self.engine.wait()
                except Paused as pause:  # a training stopped; what else is under way is still waited for
                    paused = pause
                self.running -= 1
                if self.engine.slots > 1:
                    self.submit(paused)  # the worker goes on while its last shard's record is sealed
                if done is not None:
                    self.finish(done)
            elif taken:
                time.sleep(0.5)
        if paused:  # nothing else could be done without what was being trained
            raise paused
        if self.refused:
            raise together(list(dict.fromkeys(self.refused.values())))
        return Counts(self.records, self.tasks, self.reused)

    def submit(self, paused: Paused | None) -> bool:
        """Keep the engine at work, unless it is time to stop; whether it is."""
        stop = paused is not None or self.events.should_stop()
        while self.ready and self.running < self.engine.slots and not stop:
            task = self.ready.popleft()
            self.events.doing(task)
            self.engine.submit(task)
            self.running += 1
        return stop

    def await_all(self, order: list[Work]) -> None:
        """Have recipes (inputs first) made once their inputs among them are."""
        for recipe in order:
            self.waiting[recipe.key] = needs = {i.key for i in inputs(recipe)} & self.waiting.keys()
            for key in needs:
                self.dependents.setdefault(key, []).append(recipe)
            if not needs:
                self.startable.append(recipe)

    def made(self, recipe: Work) -> None:
        """The recipe's record is there: whatever waited for it alone can start, and soon."""
        self.waiting.pop(recipe.key, None)
        for dependent in self.dependents.pop(recipe.key, []):
            needs = self.waiting.get(dependent.key)
            if needs is None:  # something else that it needs was refused
                continue
            needs.discard(recipe.key)
            if not needs:
                self.startable.appendleft(dependent)

    def seals(self, recipe: Work) -> dict[str, str] | None:
        """The seals of what the recipe is made from; None if something is lost, and is made again first."""
        made_from, lost = {}, []
        for source in inputs(recipe):
            # Bytes once for each run: a damaged input is found before hours are spent on it.
            record = self.store.find(source, thorough=source.key not in self.sound)
            if record is None:
                lost.append(source)
            else:
                made_from[source.key] = self.sound[source.key] = record.seal
        if not lost:
            return made_from
        for fault in dict.fromkeys(self.store.faults):
            self.events.note(f"damaged, will be made again: {fault}")
        self.store.faults.clear()
        for source in (source for source in lost if source.key not in self.waiting):
            self.sound.pop(source.key, None)
            self.losses[source.key] += 1
            if self.losses[source.key] > 2:
                raise UserError(str(self.store.place(source)), "is damaged again and again", "check the disk")
        again = [work for work in plan(lost, self.store, frozenset(s.key for s in lost)).order
                 if work.key not in self.waiting]  # fmt: skip
        self.await_all(again)
        needs = self.waiting[recipe.key] = {source.key for source in lost}
        for key in needs:
            self.dependents.setdefault(key, []).append(recipe)
        return None

    def start(self, recipe: Work) -> bool:
        """Queue the recipe's tasks; False if another run is making the same weights just now."""
        if recipe.key not in self.fresh and self.store.find(recipe, thorough=True) is not None:
            self.made(recipe)
            return True
        made_from = self.seals(recipe)
        if made_from is None:
            return True
        wanted: list[int | None] = list(shards(recipe)) or [None]
        lock = None
        if wanted == [None]:
            lock = claim(self.store.scratch / "locks" / recipe.key)
            if lock is None:
                self.events.note(f"another run is making {recipe.key[:12]} in this folder: waiting for it")
                return False
        digest = hashlib.sha256(repr(sorted(made_from.items())).encode()).hexdigest()[:8]
        folder = self.store.scratch / "parts" / f"{recipe.key[:24]}-{digest}"
        job = Job(recipe, folder, made_from, set(), [], {}, lock)
        for shard in wanted:
            part = None if shard is None else read_part(folder / f"{shard:05d}")
            if part is None:
                job.todo.add(shard)
            else:
                job.made_by(part[1])
        todo = job.todo
        for left in set(wanted) - todo:
            self.reused += 1
            self.events.done(Task(recipe, left, folder), share_of(recipe, left))
        self.jobs[recipe.key] = job
        with writing(folder):
            if None in todo and folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
        self.ready.extend(Task(recipe, shard, folder) for shard in wanted if shard in todo)
        if not todo:
            self.seal(job)
        return True

    def finish(self, done: Done) -> None:
        """Note a finished task, and seal the record if that was its last; give up what was refused."""
        if done.refused is not None:
            self.refuse(done.task.recipe, done.refused)
            return
        job = self.jobs.get(done.task.recipe.key)
        if job is None:  # another of its shards was refused
            return
        job.todo.discard(done.task.shard)
        job.about.append(done)
        job.made_by(done.provenance)
        self.tasks += 1
        share = share_of(job.recipe, done.task.shard)
        self.rates.learn(job.recipe, done.seconds, share)
        for note in done.notes:
            self.events.note(note)
        self.events.done(done.task, share)
        if not job.todo:
            self.seal(job)

    def refuse(self, recipe: Work, error: Refused) -> None:
        """Give up a recipe and all that needs it; other work goes on."""
        job = self.jobs.pop(recipe.key, None)
        if job is not None:
            release(job)
            shutil.rmtree(job.folder, ignore_errors=True)
        self.refused[recipe.key] = error
        self.ready = deque(task for task in self.ready if task.recipe.key != recipe.key)
        self.waiting.pop(recipe.key, None)
        for dependent in self.dependents.pop(recipe.key, []):
            if dependent.key not in self.refused:
                self.refuse(dependent, error)

    def seal(self, job: Job) -> None:
        """Gather a job's parts into its record; what is lost by then is made again."""
        if job.recipe.key in self.fresh:
            self.store.discard(self.store.place(job.recipe))
        try:
            self.store.seal(job.recipe, lambda folder: gather(job, folder), job.made_from, provenance(job, self.commit))
        except Lost:
            if job.recipe.key in self.fresh or self.store.find(job.recipe) is None:
                lost = [shard for shard in shards(job.recipe) if read_part(job.folder / f"{shard:05d}") is None]
                job.todo.update(lost)
                self.ready.extend(Task(job.recipe, shard, job.folder) for shard in lost)
                return
        shutil.rmtree(job.folder, ignore_errors=True)
        release(self.jobs.pop(job.recipe.key))
        self.records += 1
        self.made(job.recipe)
