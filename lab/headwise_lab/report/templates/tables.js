// Around tables and figures: choosing columns, showing that a table scrolls, downloads, and copying commands.

const manyColumns = 6;

/** A list of the columns of a wide table; those that are not ticked are hidden. The first one, the name, always stays. */
function columnChooser(table) {
  const heads = [...table.tHead.rows[0].cells];
  const list = make("fieldset", {}, make("legend", {}, "Columns to show"));
  for (const head of heads.slice(1)) {
    const box = make("input", { type: "checkbox" });
    box.checked = true;
    box.addEventListener("change", () => { head.classList.toggle("off", !box.checked); apply(); });
    list.append(make("label", {}, box, " ", head.textContent.trim() || "verdict"));
  }
  return make("details", { class: "columns" }, make("summary", {}, "Columns"), list);
}

/** A shadow on each side on which there is more to see, and a line that says so. */
function showsScrolling(block) {
  const scroll = block.querySelector(".scroll");
  const look = () => {
    const left = scroll.scrollLeft > 1, right = scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 1;
    scroll.parentElement.classList.toggle("more-left", left);
    scroll.parentElement.classList.toggle("more-right", right);
    block.querySelector(".hint").hidden = !(left || right);
  };
  scroll.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(scroll);
  new ResizeObserver(look).observe(scroll.firstElementChild);
}

function save(name, content) {
  const link = make("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** A file of a table, as the report wrote it into tables/. */
async function fileOf(name) {
  const bytes = Uint8Array.from(atob(records.files[name]), (letter) => letter.charCodeAt(0));
  const open = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Blob([await new Response(open).arrayBuffer()], { type: name.endsWith(".csv") ? "text/csv" : "text/plain" });
}

/** The SVG of a figure as it is shown, without what filters hide. */
function svgOf(figure) {
  const copy = figure.querySelector("svg").cloneNode(true);
  copy.querySelectorAll("[hidden]").forEach((part) => part.remove());
  copy.style.fontFamily = "DejaVu Sans, sans-serif";
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}

for (const block of document.querySelectorAll(".block")) {
  const table = block.querySelector("table");
  if (table.tHead.rows[0].cells.length > manyColumns) block.querySelector(".tools").append(columnChooser(table));
  showsScrolling(block);
  const place = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent.trim() === "Command");
  for (const row of place < 0 ? [] : table.tBodies[0].rows)
    if (row.cells[place].textContent.trim() !== "-") row.cells[place].append(copyButton(row.cells[place].textContent.trim()));
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.download");
  if (!button) return;
  if (button.dataset.file) save(button.dataset.file, await fileOf(button.dataset.file));
  else save(`${button.dataset.figure}.svg`, svgOf(button.closest("figure")));
});
