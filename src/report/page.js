// Tables of the class "sortable": a button in each head sorts by its column, again turns it round, a third time restores
// the order of the page. Rows without a figure stay last.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const key = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null;
    const value = cell.dataset.s ?? cell.dataset.v;
    if (value !== undefined) return Number(value);
    const text = cell.textContent.trim();
    if (text === "" || text === "n/a") return null;
    return cell.classList.contains("n") && !Number.isNaN(Number(text)) ? Number(text) : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const column = Number(head.dataset.c);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const next = before === null ? "ascending" : before === "ascending" ? "descending" : null;
      for (const other of heads) other.removeAttribute("aria-sort");
      let rows = original;
      if (next !== null) {
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        rows = original.map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * compare(a, b)));
        rows = rows.map(([, row]) => row);
      }
      body.append(...rows);
    });
  }
}
// Paper cannot be unfolded, and cannot hold the widest tables.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = part.querySelector("table.wide") === null;
});
