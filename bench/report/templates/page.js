"use strict";
// Sorting and filtering of the leaderboard, and the pages of a cell's images. Without it everything is still readable.
(() => {
  // A table whose heads' buttons sort its rows; `before(a, b)` orders what no column may mix.
  const sortable = (table, before) => {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const value = (row, at) => {
      const cell = row.cells[at], raw = cell.dataset.value;
      return raw !== undefined ? (raw === "" ? null : Number(raw)) : cell.textContent.trim().toLowerCase();
    };
    const sort = (at, down) => {
      rows.sort((a, b) => {
        const first = before(a, b), x = value(a, at), y = value(b, at);
        if (first) return first;
        if (x === null || y === null) return (x === null) - (y === null);
        const order = x < y ? -1 : x > y ? 1 : 0;
        return down ? -order : order;
      });
      body.append(...rows);
      heads.forEach((head, i) => {
        if (i === at) head.setAttribute("aria-sort", down ? "descending" : "ascending");
        else if (head.querySelector("button")) head.removeAttribute("aria-sort");
      });
    };
    heads.forEach((head, at) => {
      const button = head.querySelector("button");
      if (button) button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        sort(at, now ? now === "ascending" : head.classList.contains("number"));
      });
    });
    const again = () => heads.forEach((head, at) => {
      const now = head.getAttribute("aria-sort");
      if (now) sort(at, now === "descending");
    });
    return { rows, again };
  };

  const both = document.getElementById("both");
  if (both) {
    const { rows } = sortable(both, () => 0), place = document.getElementById("filter-place");
    const status = document.getElementById("protocols-status");
    place.addEventListener("input", () => {
      let shown = 0;
      for (const row of rows) {
        row.hidden = Boolean(place.value) && !row.dataset.places.split(" ").includes(place.value);
        shown += !row.hidden;
      }
      status.textContent = `${shown} of ${rows.length} defences shown`;
    });
    document.getElementById("protocols-controls").hidden = false;
  }

  const board = document.getElementById("board");
  if (board) {
    const status = document.getElementById("board-status"), pinned = document.getElementById("ours-first");
    const mine = (row) => row.dataset.origin === "ours";
    const { rows, again } = sortable(board, (a, b) => pinned.checked ? mine(b) - mine(a) : 0);
    pinned.addEventListener("input", again);
    const words = document.getElementById("filter-words"), origin = document.getElementById("filter-origin");
    const extra = document.getElementById("filter-extra");
    const filter = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const keep = wanted.every((word) => text.includes(word)) &&
          (!origin.value || row.dataset.origin === origin.value) && (!extra.checked || row.dataset.extra !== "yes");
        row.hidden = !keep;
        shown += keep;
      }
      status.textContent = `${shown} of ${rows.length} models shown`;
    };
    for (const control of [words, origin, extra]) control.addEventListener("input", filter);
    document.getElementById("board-controls").hidden = false;
    filter();
  }

  const images = document.getElementById("images");
  if (images) {
    const data = JSON.parse(document.getElementById("images-data").textContent);
    const size = 50, body = images.tBodies[0], status = document.getElementById("images-status");
    const show = document.getElementById("images-show"), order = document.getElementById("images-order");
    const back = document.getElementById("images-back"), next = document.getElementById("images-next");
    let at = 0;
    const name = (label) => data.classes[label] ?? String(label);
    const draw = () => {
      let rows = data.rows.filter((row) => !show.value || (show.value === "right") === (row[1] === row[2]));
      if (order.value === "agreement") rows = [...rows].sort((a, b) => a[3] - b[3] || a[0] - b[0]);
      at = Math.max(0, Math.min(at, Math.floor((rows.length - 1) / size) * size));
      const part = rows.slice(at, at + size);
      body.replaceChildren(...part.map((row) => {
        const line = document.createElement("tr"), right = row[1] === row[2];
        const cells = [row[0], name(row[1]), `${right ? "\u2713" : "\u00d7"} ${name(row[2])}`, `${(row[3] * 100).toFixed(0)} %`, row[4], row[5]];
        cells.forEach((text, i) => {
          const cell = document.createElement("td");
          cell.textContent = text;
          if (i === 0 || i > 2) cell.className = "number";
          if (i === 2) cell.className = right ? "right" : "wrong";
          line.append(cell);
        });
        return line;
      }));
      status.textContent = rows.length ? `Images ${at + 1} to ${at + part.length} of ${rows.length}` : "No such image";
      back.disabled = at === 0;
      next.disabled = at + size >= rows.length;
    };
    back.addEventListener("click", () => { at -= size; draw(); });
    next.addEventListener("click", () => { at += size; draw(); });
    for (const control of [show, order]) control.addEventListener("input", () => { at = 0; draw(); });
    draw();
  }
})();
