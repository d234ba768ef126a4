// Filters: rows, columns, figures and sections that do not match are hidden; the state is in the address.

const kinds = ["benchmark", "budget", "heads", "model"];
const form = document.querySelector(".filters");
const fields = Object.fromEntries([...kinds, "strategy"].map((kind) => [kind, form.elements[kind]]));
const shown = form.querySelector("output");
const nothing = document.querySelector(".none");

/** Values of an element for a kind: its own or those of what it stands in; null where filters say nothing about it. */
function valuesOf(element, kind) {
  const told = element.closest(`[data-${kind}]`);
  return told ? told.dataset[kind].split("\n") : null;
}

const rows = [...document.querySelectorAll("table.filtered > tbody > tr")].map((element) => ({
  element,
  table: element.closest("table"),
  values: Object.fromEntries(kinds.map((kind) => [kind, valuesOf(element, kind)])),
}));
const pictures = [...document.querySelectorAll("figure.drawn, li[data-benchmark]")];
const marks = [...document.querySelectorAll(".chart .mark")];
const sections = [...document.querySelectorAll("section.filtered")];

function chosen() {
  const state = Object.fromEntries(kinds.map((kind) => [kind, fields[kind]?.value ?? ""]));
  return { ...state, words: (fields.strategy.value.toLowerCase().match(/\S+/g) ?? []) };
}

/** Whether values pass the selections. */
function passes(values, state) {
  return kinds.every((kind) => !state[kind] || !values[kind] || values[kind].includes(state[kind]));
}

function has(text, words) {
  return words.every((word) => text.includes(word));
}

/** Everything that names the strategies of records: their texts and their recipe. */
function strategiesOf(ids) {
  return ids.map((id) => `${fact(id, "Strategies")} ${fact(id, "Recipe")}`).join(" ").toLowerCase();
}

/** Texts of a row to search in; made when first asked for. */
function searchable(row) {
  row.texts ??= [...row.element.cells].map((cell) => {
    const link = cell.querySelector("a.figure");
    const ids = link ? (link.dataset.records ?? row.element.dataset.records ?? "").split(" ") : [];
    const text = cell.classList.contains("l") ? cell.textContent.toLowerCase() : "";
    return `${text} ${strategiesOf(ids)}`;
  }).join(" ");
  return row.texts;
}

/** Columns are hidden where the reader took them out, or where they are of another budget or head count. */
function filterColumns(table, state) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const { ofBudget, ofHeads } = head.dataset;
    const hide = head.classList.contains("off") || Boolean((state.budget && ofBudget && ofBudget !== state.budget) || (state.heads && ofHeads && ofHeads !== state.heads));
    if (hide === head.hidden) return;
    head.hidden = hide;
    for (const row of table.tBodies[0].rows) row.cells[place].hidden = hide;
  });
}

function rowMatches(row, state) {
  return passes(row.values, state) && (!state.words.length || has(searchable(row), state.words));
}

function apply() {
  const state = chosen();
  for (const table of new Set(rows.map((row) => row.table))) filterColumns(table, state);
  const left = new Map();
  let count = 0;
  for (const row of rows) {
    const matches = rowMatches(row, state);
    row.element.hidden = !matches;
    if (matches) count += 1;
    left.set(row.table, (left.get(row.table) ?? 0) + matches);
  }
  for (const [table, number] of left) table.closest(".block").hidden = number === 0;
  for (const picture of pictures) picture.hidden = !passes(ofElement(picture), state);
  for (const mark of marks) mark.toggleAttribute("hidden", !passes(ofElement(mark), state) || !has(strategiesOf((mark.dataset.records ?? "").split(" ")), state.words));
  document.querySelectorAll(".kept").forEach((view) => view.dispatchEvent(new CustomEvent("filter", { detail: state })));
  for (const section of sections) {
    const tables = [...section.querySelectorAll("table.filtered")];
    section.hidden = tables.length ? tables.every((table) => left.get(table) === 0) : !passes(ofElement(section), state);
    tellRows(section, tables.reduce((sum, table) => sum + left.get(table), 0));
    const link = document.querySelector(`.contents a[href="#${CSS.escape(section.id)}"]`);
    if (link) link.parentElement.hidden = section.hidden;
  }
  nothing.hidden = count > 0 || rows.length === 0;
  shown.textContent = `${count} of ${rows.length} rows shown`;
  Object.values(fields).forEach((field) => field?.classList.toggle("set", Boolean(field.value)));
  form.elements.clear.disabled = !Object.values(fields).some((field) => field?.value);
}

/** How many rows of a folded section match, beside its heading. */
function tellRows(section, count) {
  const of = section.querySelectorAll("table.filtered > tbody > tr").length;
  section.querySelector(".rows").textContent = count === of ? `${of} rows` : `${count} of ${of} rows`;
}

function ofElement(element) {
  return Object.fromEntries(kinds.map((kind) => [kind, valuesOf(element, kind)]));
}

/** Take the filters from the address; a value that the page does not have is no filter. */
function restore() {
  const state = readState();
  for (const [kind, field] of Object.entries(fields)) {
    if (!field) continue;
    field.value = state.get(kind) ?? "";
    if (field.selectedIndex === -1) field.value = "";
  }
  apply();
}

form.addEventListener("input", () => {
  writeState(Object.fromEntries(Object.entries(fields).map(([kind, field]) => [kind, field?.value ?? ""])));
  apply();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.elements.clear.addEventListener("click", () => {
  Object.values(fields).forEach((field) => { if (field) field.value = ""; });
  form.dispatchEvent(new Event("input"));
});
window.addEventListener("hashchange", () => { if (readState().size || !location.hash) restore(); });
