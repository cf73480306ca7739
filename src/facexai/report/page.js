"use strict";
(() => {
  document.documentElement.classList.add("js");
  const record = JSON.parse(document.getElementById("record").textContent);
  const sections = Object.fromEntries(record.sections.map((section) => [section.id, section]));
  /* All digits of the record: the page shows no other number. */
  const short = (value) => (value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential() : String(value));

  /* The view of the record that a figure shows: "section:item:number". */
  const held = (figure) => {
    const [id, item, number] = figure.dataset.at.split(":");
    const one = sections[id].items[item];
    if (one.sides) return one.sides[number].view;
    return one.change || one.views[number];
  };

  const place = (box, stage, cell, rows, columns) => {
    box.style.left = `${(100 * (cell % columns)) / columns}%`;
    box.style.top = `${(100 * Math.floor(cell / columns)) / rows}%`;
    box.style.width = `${100 / columns}%`;
    box.style.height = `${100 / rows}%`;
    box.hidden = false;
  };

  const clearMatches = (pair) => pair && pair.querySelectorAll(".match").forEach((box) => box.remove());

  const showMatches = (figure, cell) => {
    const pair = figure.closest(".pair");
    if (!pair) return "";
    clearMatches(pair);
    const [id, item] = pair.dataset.pair.split(":");
    const matches = sections[id].items[item].matches;
    if (!matches) return "";
    const figures = [...pair.querySelectorAll(".view")];
    const side = figures.indexOf(figure);
    const other = figures[1 - side];
    const stage = other.querySelector(".stage");
    const found = matches[side][cell];
    found.forEach(([partner, value], rank) => {
      const box = document.createElement("div");
      box.className = `match rank-${rank}`;
      box.textContent = rank ? "" : short(value);
      place(box, stage, partner, Number(other.dataset.rows), Number(other.dataset.columns));
      stage.append(box);
    });
    const wide = Number(other.dataset.columns);
    const where = ([partner, value]) => `row ${Math.floor(partner / wide) + 1}, column ${(partner % wide) + 1}: ${short(value)}`;
    return found.length ? `; matched most in the other face: ${found.map(where).join("; ")}` : "; matched nothing";
  };

  document.querySelectorAll(".view").forEach((figure) => {
    const stage = figure.querySelector(".stage");
    const slider = figure.querySelector("input[type=range]");
    if (slider) {
      const reveal = () => stage.style.setProperty("--reveal", `${slider.value}%`);
      slider.addEventListener("input", reveal);
      reveal();
    }
    if (!figure.dataset.at) return;
    const rows = Number(figure.dataset.rows), columns = Number(figure.dataset.columns);
    const view = held(figure), told = figure.querySelector(".told"), frame = figure.querySelector(".cell");
    let cell = null;
    const show = (next) => {
      if (next === cell) return;
      cell = next;
      place(frame, stage, cell, rows, columns);
      const row = Math.floor(cell / columns), column = cell % columns;
      const value = view.cells[row][column];
      told.textContent = `row ${row + 1}, column ${column + 1}: ${short(value)} ${view.unit}${showMatches(figure, cell)}`;
    };
    const clear = () => {
      cell = null;
      frame.hidden = true;
      told.textContent = "";
      clearMatches(figure.closest(".pair"));
    };
    stage.addEventListener("pointermove", (event) => {
      const box = stage.getBoundingClientRect();
      const inside = (value, most) => Math.min(Math.max(Math.floor(value * most), 0), most - 1);
      const row = inside((event.clientY - box.top) / box.height, rows);
      show(row * columns + inside((event.clientX - box.left) / box.width, columns));
    });
    /* A finger leaves at once; what it pointed at stays to be read. */
    stage.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && clear());
    stage.addEventListener("blur", clear);
    stage.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (event.key === "Escape") clear();
      if (!step) return;
      event.preventDefault();
      const now = cell === null ? Math.floor(rows / 2) * columns + Math.floor(columns / 2) : cell;
      const row = Math.floor(now / columns) + (cell === null ? 0 : step[0]);
      const column = (now % columns) + (cell === null ? 0 : step[1]);
      if (row >= 0 && row < rows && column >= 0 && column < columns) show(row * columns + column);
    });
  });

  /* Paper shows what is folded away. */
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
})();
