// The details of a number: what it is, and for each record it comes from n, SE, strategies, command, versions.

const facts = document.getElementById("facts");
let asking = null;

function listed(pairs) {
  const list = make("dl");
  for (const [label, value, kind] of pairs) list.append(make("dt", {}, label), make("dd", kind ? { class: kind } : {}, ...[value].flat()));
  return list;
}

/** Facts of the figure itself, a line each: "label, tab, value", or a sentence. */
function own(text) {
  const lines = text.split("\n").filter(Boolean).map((line) => line.split("\t"));
  const parts = [];
  if (lines.some((line) => line.length > 1)) parts.push(listed(lines.filter((line) => line.length > 1)));
  for (const [sentence] of lines.filter((line) => line.length === 1)) parts.push(make("p", { class: "soft" }, sentence));
  return parts;
}

function copyButton(text) {
  const button = make("button", { type: "button", class: "copy", "aria-label": "Copy the command" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange(); // without the right to the clipboard: select the text before the button
      range.setStart(button.parentElement, 0);
      range.setEndBefore(button);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
  });
  return button;
}

function record(id) {
  const pairs = records.labels.map((label) => [label, fact(id, label)]).filter(([, value]) => value);
  const told = pairs.map(([label, value]) => {
    if (label === "Command") return [label, [make("span", {}, value), make("br"), copyButton(value)], "code"];
    return [label, value, label === "Strategies" ? "code" : ""];
  });
  return listed([...told, ["Record", make("a", { href: `#r-${id}` }, id)]]);
}

function open(link) {
  const row = link.closest("tr");
  const table = link.closest("table");
  const cell = link.closest("td");
  const ids = (link.dataset.records ?? row.dataset.records).split(" ").filter((id) => id in records.records);
  const labels = [...row.cells].filter((other) => other.classList.contains("l") && other !== cell).map((other) => other.textContent.trim());
  const column = table.tHead.rows[0].cells[cell.cellIndex].textContent.trim();
  const note = cell.querySelector("small")?.textContent ?? "";
  const heading = make("h4", {}, column, " ", make("span", {}, [...new Set(labels)].slice(0, 3).join(" · ")));
  const close = make("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => facts.hidePopover());
  facts.replaceChildren(close, heading, make("p", { class: "value" }, link.textContent.trim(), ...(note ? [" ", make("small", {}, note)] : [])), ...own(records.notes[link.dataset.own] ?? ""));
  if (ids.length > 1) facts.append(make("p", { class: "soft" }, `From ${ids.length} records:`));
  for (const id of ids.slice(0, 12)) facts.append(make("hr"), ...(ids.length > 1 ? [make("h5", {}, id)] : []), record(id));
  if (ids.length > 12) facts.append(make("p", { class: "soft" }, `and ${ids.length - 12} more: ${ids.slice(12).join(", ")}`));
  asking = link;
  facts.showPopover();
  link.setAttribute("aria-expanded", "true");
  place(link);
  facts.scrollTop = 0;
  close.focus({ preventScroll: true });
}

/** Beside the number, and within the window. */
function place(link) {
  const at = link.getBoundingClientRect();
  const { width, height } = facts.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - width - 8));
  const below = at.bottom + 8;
  const top = below + height < innerHeight ? below : Math.max(8, at.top - height - 8);
  facts.style.left = `${left}px`;
  facts.style.top = `${top + height < innerHeight ? top : Math.max(8, innerHeight - height - 8)}px`;
}

if (facts.showPopover) {
  for (const link of document.querySelectorAll("a.figure")) link.setAttribute("aria-haspopup", "dialog");
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.figure");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    open(link);
  });
  facts.addEventListener("click", (event) => { if (event.target.closest("a")) facts.hidePopover(); });
  facts.addEventListener("toggle", (event) => {
    if (event.newState === "open" || !asking) return;
    asking.removeAttribute("aria-expanded");
    if (facts.contains(document.activeElement) || document.activeElement === document.body) asking.focus({ preventScroll: true });
  });
}
