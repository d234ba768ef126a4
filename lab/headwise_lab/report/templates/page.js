// What the other parts share: the records of the page, small helpers, and the state that the address carries.

const records = JSON.parse(document.getElementById("records-data").textContent);
document.documentElement.classList.add("script");

/** A new element with attributes and children; texts stay texts. */
function make(name, attributes = {}, ...children) {
  const drawing = ["svg", "image", "path", "rect", "clipPath", "pattern", "title"].includes(name);
  const element = drawing ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** The value of a record under a label: shared texts are numbered. */
function fact(id, label) {
  const value = (records.records[id] ?? [])[records.labels.indexOf(label)];
  return typeof value === "number" ? records.texts[value] : value ?? "";
}

/** What the address says after #: state where it has "=", else the name of a place on the page. */
function readState() {
  const text = location.hash.slice(1);
  return new URLSearchParams(text.includes("=") ? text : "");
}

/** Change some of the state in the address; an empty value takes it out. */
function writeState(changes) {
  const state = readState();
  for (const [key, value] of Object.entries(changes)) value ? state.set(key, value) : state.delete(key);
  const text = state.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

/** Go to a place on the page: the folds around it open, and its own. The state in the address stays as it is. */
function show(id) {
  const place = id && document.getElementById(id);
  if (!place) return;
  unfold(place);
  place.scrollIntoView({ block: place.matches("tr") ? "center" : "start" });
  document.querySelectorAll("tr.found").forEach((row) => row.classList.remove("found"));
  if (place.matches("tr")) place.classList.add("found");
}

function unfold(place) {
  for (let fold = place.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  const own = place.querySelector(":scope > details.fold");
  if (own) own.open = true;
}

/** The place that the address names; none where it carries state. */
function named() {
  return location.hash.includes("=") ? "" : decodeURIComponent(location.hash.slice(1));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]:not(.figure)');
  if (!link) return;
  const id = decodeURIComponent(link.getAttribute("href").slice(1));
  if (readState().size) event.preventDefault();
  else if (location.hash !== `#${id}`) return; // the browser goes there, and "hashchange" unfolds it
  show(id);
});
window.addEventListener("hashchange", () => show(named()));
document.addEventListener("DOMContentLoaded", () => show(named()));

const folds = [...document.querySelectorAll("main details:not(.columns)")];
const allFolds = document.querySelector(".filters [name=folds]");

function foldAll(open) {
  folds.forEach((fold) => { fold.open = open; });
}

allFolds.addEventListener("click", () => foldAll(folds.some((fold) => !fold.open)));
document.addEventListener("toggle", () => {
  allFolds.textContent = folds.some((fold) => !fold.open) ? "Open all" : "Close all";
}, true);

let closed = [];
window.addEventListener("beforeprint", () => {
  closed = folds.filter((fold) => !fold.open);
  foldAll(true);
});
window.addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));
