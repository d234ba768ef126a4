// Kept tokens over pictures: one question, a setting, and two to four strategies beside each other.

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

/** The picture, faded where tokens were dropped, and the boxes that the question is about. */
function drawing(picture, { boxes, small }, kept, side, told) {
  const size = 100 / side;
  const name = `kept-${(drawn += 1)}`;
  const cells = kept.map((index) => `M${(index % side) * size} ${Math.floor(index / side) * size}h${size}v${size}h${-size}z`).join("");
  const whole = { href: picture, width: 100, height: 100, preserveAspectRatio: "none", style: `image-rendering: ${small ? "pixelated" : "auto"}` };
  const svg = make("svg", { viewBox: "0 0 100 100", role: "img" }, make("title", {}, told),
    make("clipPath", { id: name }, make("path", { d: cells })),
    make("image", { ...whole, style: `${whole.style}; filter: grayscale(1)`, opacity: 0.22 }),
    make("image", { ...whole, "clip-path": `url(#${name})` }),
    make("path", { d: cells, fill: "none", stroke: "white", "stroke-opacity": 0.55, "stroke-width": 0.35, class: "cells" }));
  for (const [left, top, right, bottom] of boxes)
    svg.append(make("rect", { x: 100 * left, y: 100 * top, width: 100 * (right - left), height: 100 * (bottom - top),
      fill: "none", stroke: "#ffb000", "stroke-width": 1.1, class: "box" }));
  return svg;
}

function panel(data, question, strategy, given) {
  if (!given)
    return make("figure", { class: "panel" }, make("figcaption", {}, make("b", {}, strategy.name), make("p", { class: "soft" }, "Its tokens cannot be placed on this picture.")));
  const kept = indices(given.kept);
  const told = `${strategy.name} keeps ${kept.length} of ${data.side ** 2} tokens and answers ${given.said}`;
  const [sign, kind] = mark(given);
  const list = make("dl");
  const facts = [["kept", `${kept.length} of ${data.side ** 2} tokens`]];
  if (given.recall !== null) facts.push(["recall", given.recall.toFixed(2)]);
  if (given.heads.length) facts.push(["heads", given.heads.join(", ")]);
  for (const [label, value] of facts) list.append(make("dt", {}, label), make("dd", {}, value));
  return make("figure", { class: "panel", "data-strategy": strategy.name }, drawing(data.pictures[question.picture], question, kept, data.side, told),
    make("figcaption", {}, make("b", {}, strategy.name), " ", make("span", { class: kind }, `${sign} ${given.said || "no answer"}`), list));
}

function view(root) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const [question, setting] = [root.querySelector("select.question"), root.querySelector("select.setting")];
  const [chips, panels, asked] = [".chips", ".panels", ".asked"].map((name) => root.querySelector(name));
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
    panels.replaceChildren(...names.map((name) => strategies.find((strategy) => strategy.name === name)).filter(Boolean)
      .map((strategy) => panel(data, one, strategy, strategy.given[question.value])));
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
