// Kept tokens over pictures: one question, a setting, the picture itself, and up to four strategies beside it.

const most = 4;

/** Indices of the bits that are set: the first token is the highest bit of the first byte. */
function indices(text) {
  const found = [];
  [...atob(text)].forEach((letter, byte) => {
    for (let bit = 0; bit < 8; bit += 1) if (letter.charCodeAt(0) & (128 >> bit)) found.push(8 * byte + bit);
  });
  return found;
}

function mark(given) {
  if (!given) return ["?", ""];
  return given.score >= 0.999 ? ["✓", "right"] : given.score <= 0 ? ["✗", "wrong"] : [`${given.score}`, ""];
}

let drawn = 0;

/** Path of the cells of tokens, and of the line around them; a grid [rows, columns] lies on a box [x0, y0, x1, y1]. */
function outline(kept, [rows, columns], [left, top, right, bottom]) {
  const [width, height] = [(right - left) / columns, (bottom - top) / rows];
  const held = new Set(kept);
  let [cells, edges] = ["", ""];
  for (const index of kept) {
    const [row, column] = [Math.floor(index / columns), index % columns];
    const [x, y] = [left + column * width, top + row * height];
    cells += `M${x} ${y}h${width}v${height}h${-width}z`;
    if (!row || !held.has(index - columns)) edges += `M${x} ${y}h${width}`;
    if (row === rows - 1 || !held.has(index + columns)) edges += `M${x} ${y + height}h${width}`;
    if (!column || !held.has(index - 1)) edges += `M${x} ${y}v${height}`;
    if (column === columns - 1 || !held.has(index + 1)) edges += `M${x + width} ${y}v${height}`;
  }
  return { cells, edges };
}

/** The picture as it is, or (given what was kept) grey and hatched where tokens were dropped; with the question's boxes. */
function drawing(picture, grid, boxes, kept, told) {
  const { uri, width, height, box, small } = picture;
  const name = `kept-${(drawn += 1)}`;
  const whole = { href: uri, width, height, preserveAspectRatio: "none", style: `image-rendering: ${small ? "pixelated" : "auto"}` };
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, make("title", {}, told));
  if (!kept) svg.append(make("image", whole));
  else {
    const { cells, edges } = outline(kept, grid, box);
    const place = { x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1] };
    svg.append(make("clipPath", { id: name }, make("path", { d: cells })),
      make("pattern", { id: `${name}-lines`, width: 2, height: 2, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        make("path", { d: "M.4 0v2", stroke: "#101010", "stroke-width": 0.4, "stroke-opacity": 0.5 }),
        make("path", { d: "M.8 0v2", stroke: "white", "stroke-width": 0.4, "stroke-opacity": 0.5 })),
      make("image", { ...whole, style: `${whole.style}; filter: grayscale(1)`, opacity: 0.3 }),
      make("rect", { ...place, fill: "#808080", "fill-opacity": 0.6 }), make("rect", { ...place, fill: `url(#${name}-lines)` }),
      make("image", { ...whole, "clip-path": `url(#${name})` }), make("path", { d: cells, fill: "none", class: "cells" }));
    for (const [colour, size] of [["#101010", 1.3], ["white", 0.55]])
      svg.append(make("path", { d: edges, fill: "none", stroke: colour, "stroke-width": size, "stroke-linecap": "square" }));
  }
  for (const [left, top, right, bottom] of boxes)
    for (const [colour, size] of [["black", 1.7], ["#ffb000", 0.9]])
      svg.append(make("rect", { x: left, y: top, width: right - left, height: bottom - top, fill: "none", stroke: colour,
        "stroke-width": size, class: size < 1 ? "box" : "case" }));
  return svg;
}

/** The untouched picture, with the boxes of the question. */
function original(data, question) {
  return make("figure", { class: "panel" }, drawing(data.pictures[question.picture], data.grid, question.boxes, null, "The picture itself"),
    make("figcaption", {}, make("b", {}, "the picture")));
}

/** What a strategy kept after a stage, counted from 1; of one with fewer stages, after its last. */
function panel(data, question, strategy, given, stage) {
  if (!given)
    return make("figure", { class: "panel", "data-strategy": strategy.name }, make("figcaption", {}, make("b", {}, strategy.name), make("p", { class: "soft" }, "Its tokens cannot be placed on this picture.")));
  const last = Math.max(given.stages.length, 1);
  const now = Math.min(stage, last);
  const kept = indices(now < last ? given.stages[now - 1] : given.kept);
  const count = `${kept.length} of ${data.grid[0] * data.grid[1]} tokens`;
  const [sign, kind] = mark(given);
  const list = make("dl");
  const facts = [[last > 1 ? `before layer ${strategy.layers[now - 1]}` : "kept", count]];
  if (given.recall !== null) facts.push(["recall", given.recall.toFixed(2)]);
  if (given.heads.length) facts.push(["heads", given.heads.join(", ")]);
  if (strategy.merges) facts.push(["merged", "kept tokens also hold some of the dropped ones"]);
  for (const [label, value] of facts) list.append(make("dt", {}, label), make("dd", {}, value));
  return make("figure", { class: "panel", "data-strategy": strategy.name },
    drawing(data.pictures[question.picture], data.grid, question.boxes, kept, `${strategy.name} keeps ${count} and answers ${given.said}`),
    make("figcaption", {}, make("b", {}, strategy.name), " ", make("span", { class: kind }, `${sign} ${given.said || "no answer"}`), list));
}

function view(root) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const [question, setting] = [root.querySelector("select.question"), root.querySelector("select.setting")];
  const [chips, panels, asked, stage] = [".chips", ".panels", ".asked", ".stage"].map((name) => root.querySelector(name));
  const key = root.id;
  let names = [];
  let words = [];

  data.questions.forEach((one, place) => question.append(new Option(`${place + 1}. ${one.text}`, place)));
  data.settings.forEach((one, place) => setting.append(new Option(one.label, place)));

  function remember() {
    writeState({ [key]: `${question.value}.${setting.value}.${names.join("|")}` });
  }

  function recall() {
    const [place, row, ...rest] = (readState().get(key) ?? "").split(".");
    question.value = place in data.questions ? place : 0;
    if (row in data.settings) setting.value = row;
    const strategies = data.settings[setting.value].strategies.map((one) => one.name);
    const wanted = rest.join(".").split("|").filter((name) => strategies.includes(name));
    names = wanted.length ? wanted.slice(0, most) : data.settings[setting.value].first;
  }

  function chip(strategy) {
    const [sign, kind] = mark(strategy.given[question.value]);
    const box = make("input", { type: "checkbox", value: strategy.name });
    box.checked = names.includes(strategy.name);
    box.disabled = !box.checked && names.length >= most;
    box.addEventListener("change", () => {
      names = box.checked ? [...names, strategy.name] : names.filter((name) => name !== strategy.name);
      remember();
      draw();
      [...chips.querySelectorAll("input")].find((other) => other.value === strategy.name)?.focus();
    });
    return make("label", { class: "chip" }, box, make("span", { class: kind, "aria-hidden": "true" }, sign), strategy.name);
  }

  function draw() {
    const one = data.questions[question.value];
    const { strategies } = data.settings[setting.value];
    const offered = strategies.filter((strategy) => names.includes(strategy.name) || has(`${strategy.name.toLowerCase()} ${strategiesOf([strategy.record])}`, words));
    chips.replaceChildren(make("legend", {}, `Strategies, up to ${most} at once`), ...offered.map(chip));
    asked.replaceChildren(make("b", {}, one.text), one.answers.length ? ` → ${one.answers.join(" / ")}` : "");
    const shown = names.map((name) => strategies.find((strategy) => strategy.name === name)).filter(Boolean);
    const stages = Math.max(1, ...shown.map((strategy) => strategy.given[question.value]?.stages.length ?? 0));
    if (stages !== Number(stage.max)) stage.value = stage.max = stages;
    stage.parentElement.hidden = stages < 2;
    stage.nextElementSibling.value = `${stage.value} of ${stages}`;
    panels.replaceChildren(original(data, one), ...shown.map((strategy) => panel(data, one, strategy, strategy.given[question.value], Number(stage.value))));
    root.querySelector(".before").disabled = question.selectedIndex === 0;
    root.querySelector(".after").disabled = question.selectedIndex === data.questions.length - 1;
  }

  function step(by) {
    question.selectedIndex += by;
    remember();
    draw();
  }

  root.querySelector(".before").addEventListener("click", () => step(-1));
  root.querySelector(".after").addEventListener("click", () => step(1));
  question.addEventListener("change", () => step(0));
  stage.addEventListener("input", draw);
  setting.addEventListener("change", () => {
    const there = data.settings[setting.value].strategies.map((one) => one.name);
    names = names.filter((name) => there.includes(name));
    if (!names.length) names = data.settings[setting.value].first;
    remember();
    draw();
  });
  root.addEventListener("filter", ({ detail }) => {
    words = detail.words;
    const fits = data.settings.map((one) => (!detail.budget || one.budget === detail.budget) && (!detail.heads || !one.heads || one.heads === detail.heads));
    [...setting.options].forEach((option, place) => { option.hidden = option.disabled = !fits[place]; });
    root.hidden = !fits.includes(true) || !passes(ofElement(root), { ...detail, budget: "", heads: "" });
    if (!root.hidden && !fits[setting.value]) {
      setting.value = fits.indexOf(true);
      setting.dispatchEvent(new Event("change"));
    } else draw();
  });
  window.addEventListener("hashchange", () => { recall(); draw(); });
  recall();
}

document.querySelectorAll(".kept").forEach(view);
restore();
