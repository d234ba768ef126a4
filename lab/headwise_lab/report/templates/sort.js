// Tables are sorted by a click on a header: ascending, descending, as they were. What is missing comes last.

const missing = ["", "-", "–", "unknown"];

/** A cell to sort by: the number it begins with, else its text. */
function sortable(cell) {
  const text = (cell.querySelector("a") ?? cell).textContent.trim();
  const number = /^[<≥≤]?\s*[+−-]?\d/.test(text) && !cell.classList.contains("l")
    ? parseFloat(text.replace("−", "-").replace(/^[<≥≤]\s*/, "").replace(/,(?=\d{3})/g, "")) : NaN;
  return { text, number, missing: missing.includes(text) };
}

function compare(one, other) {
  if (Number.isNaN(one.number) || Number.isNaN(other.number))
    return one.text.localeCompare(other.text, undefined, { numeric: true });
  return one.number - other.number;
}

function sortBy(table, place, direction) {
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => ({ row, key: sortable(row.cells[place]) }));
  keyed.sort((one, other) => {
    if (direction === "none") return one.row.dataset.place - other.row.dataset.place;
    if (one.key.missing || other.key.missing) return one.key.missing - other.key.missing;
    return (direction === "descending" ? -1 : 1) * compare(one.key, other.key);
  });
  body.append(...keyed.map(({ row }) => row));
  for (const [index, head] of [...table.tHead.rows[0].cells].entries())
    index === place && direction !== "none" ? head.setAttribute("aria-sort", direction) : head.removeAttribute("aria-sort");
}

for (const table of document.querySelectorAll("table")) {
  [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = make("button", { type: "button", title: "sort" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] ?? "ascending";
      sortBy(table, place, next);
    });
  });
}
