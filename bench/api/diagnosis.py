"""`bench.diagnose`: every check of ``bench diagnose`` on a program's own model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench import UserError, __version__
from bench.api.attacks import eps_of, norm_of, recipes_of
from bench.api.call import suite_of
from bench.api.checked import auto, seed_of, whole
from bench.api.hand import lend
from bench.api.outcome import Asking
from bench.api.run import Bar
from bench.recipes import PGD, Examples, Peer
from bench.store.disk import read_part, write_part
from bench.suite.schema import Protocol

if TYPE_CHECKING:
    from bench.lab.examine.rules import Finding


def diagnose(
    model: Any,
    data: Any = "cifar10",
    attack: Any = "pgd20",
    *,
    eps: Any = "8/255",
    norm: str = "Linf",
    eot: int | Literal["auto"] = 1,
    redraw: Any = None,
    n: int = 100,
    seed: int = 0,
    queries: int = 200,
    device: str = "auto",
    out: Path | str | None = None,
    data_root: Path | str | None = None,
    progress: bool | None = None,
) -> list[Finding]:
    """Is this robustness real? Every check of ``bench diagnose`` on `n` images: (check, figure, verdict, advice) each.

    verdict: "ok", "suspicious" or "cannot tell". `attack` is the PGD, or another library's attack, that is to be
    reported; other arguments and errors are those of `bench.evaluate`. Ctrl-C: what was found by then is returned, and
    that it is not all. In `out` what was found is kept: the same call reads a whole diagnosis back (one that was
    interrupted begins anew), and `bench.evaluate` with that folder says below its numbers what is suspicious.
    """
    from bench.lab.examine.diagnose import diagnose as checks
    from bench.lab.examine.rules import Finding
    from bench.lab.streams import Streams

    protocol, far, kind = Protocol(seed=seed_of(seed)), eps_of(eps), norm_of(norm)
    asks, slopes = whole("queries", queries), auto("eot", eot)
    with lend(model, data, n, seed=seed, device=device, out=out, data_root=data_root, redraw=redraw) as it:
        declared = next(iter(recipes_of(attack, far, kind, it.who.model.stochastic, slopes).values()), None)
        if not isinstance(declared, PGD | Peer) or declared.norm == "L1":
            raise UserError("attack", f"{attack!r} is neither a PGD nor another library's", 'name one such as "pgd20"')
        bench = it.bench(suite_of(it.who, it.data, Asking({}, kind, 1, False), protocol))
        kept = _place(bench.session.store.scratch, it.who.model.key, it.data.key, declared.key, seed, asks)
        if (before := _kept(kept)) is not None:
            return [Finding(**one) for one in before]
        lab, found, bar = bench.lab, list[Finding](), Bar(progress, None)
        x, y, _ = lab.shard(Examples(data=it.data, shard=it.asked), 0)
        compute = lab.compute()
        lab.suit(compute, "float32", it.who.model, it.data, judging=False)
        several = checks(
            lab.model(it.who.model, it.data), x, y, Streams(protocol.seed, 0, x.device), compute, declared, queries=asks
        )
        whole_ = True
        try:
            with bar.shown():
                for one in several:
                    found.append(one)
                    bar.at(description=f"after {one.check}", completed=len(found))
        except KeyboardInterrupt:
            if not found:
                raise
            whole_ = False
            left = f"interrupted after {len(found)} checks: what comes after them is not known"
            found.append(Finding("interrupted", left, "cannot tell", "call it again"))
        said = [one._asdict() for one in found]
        if out is not None:
            bench.session.diagnosed(it.who.name, said)
            if whole_:
                write_part(kept, json.dumps(said).encode())
    return found


def _place(scratch: Path, *about: object) -> Path:
    """Where a diagnosis of this model, these images, this attack and seed is kept."""
    return scratch / "diagnosis" / hashlib.sha256(repr((__version__, about)).encode()).hexdigest()[:32]


def _kept(path: Path) -> list[dict[str, Any]] | None:
    part = read_part(path)
    return None if part is None else json.loads(part[0])
