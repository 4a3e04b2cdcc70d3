"use strict";

// Tables: a heading sorts by its column; what has no value comes last either way.
function sortBy(button) {
  const heading = button.parentElement;
  const table = heading.closest("table");
  const column = [...heading.parentElement.children].indexOf(heading);
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const numeric = heading.classList.contains("number");
  const value = (row) => {
    const cell = row.children[column];
    return numeric ? parseFloat(cell.dataset.value ?? "NaN") : cell.textContent;
  };
  const missing = (each) => each === "" || Number.isNaN(each);
  const order = (a, b) => (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [value(row), row]);
  rows.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : sign * order(a, b)));
  body.append(...rows.map(([, row]) => row));
  for (const each of heading.parentElement.children) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
}

function search(input) {
  const words = input.value.toLowerCase().split(/\s+/);
  for (const row of document.getElementById(input.dataset.searches).tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}

// Films: one frame of a strip is seen at a time.
function turn(place, at) {
  for (const frame of place.querySelectorAll(".frame")) {
    frame.style.setProperty("--at", Math.min(at, Number(frame.dataset.count) - 1));
  }
}

function slide(input) {
  const place = input.closest(".slider");
  const step = input.dataset.steps.split(" ")[input.value];
  turn(place, Number(input.value));
  place.querySelector("output").textContent = step;
  input.setAttribute("aria-valuetext", `step ${step}`);
}

function picture(film, name) {
  const figure = document.createElement("figure");
  figure.className = "picture";
  const frame = document.createElement("div");
  frame.className = "frame";
  frame.setAttribute("role", "img");
  frame.setAttribute("aria-label", name);
  frame.dataset.count = film.count;
  frame.style.cssText = `--count:${film.count};--at:0;aspect-ratio:${film.ratio}`;
  const strip = document.createElement("img");
  strip.src = film.src;
  strip.alt = "";
  frame.append(strip);
  const caption = document.createElement("figcaption");
  caption.textContent = name;
  figure.append(frame, caption);
  return figure;
}

// Heat maps: a cell opens its sentences and pictures in the panel below.
function openCell(heat, data, button) {
  const row = Number(button.dataset.row);
  const column = Number(button.dataset.column);
  for (const each of heat.querySelectorAll("[aria-pressed]")) each.removeAttribute("aria-pressed");
  button.setAttribute("aria-pressed", "true");
  const panel = heat.querySelector(".panel");
  const sentences = data.cells[row][column].map((text) => {
    const line = document.createElement("p");
    line.textContent = text;
    return line;
  });
  const films = data.beside.map((film) => picture(film, film.name));
  if (data.films[row]) films.splice(1, 0, picture(data.films[row], data.own));
  const pictures = document.createElement("div");
  pictures.className = "pictures";
  pictures.append(...films);
  const caption = document.createElement("p");
  caption.textContent = films.length ? data.caption : "";
  panel.replaceChildren(...sentences, caption, pictures);
  turn(panel, column);
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function moveFocus(heat, event) {
  const here = event.target.closest("button");
  if (!here) return;
  const width = here.closest("tr").querySelectorAll("button").length;
  const row = Number(here.dataset.row);
  const column = Number(here.dataset.column);
  const ends = { Home: [row, 0], End: [row, width - 1] };
  const move = MOVES[event.key];
  const to = move ? [row + move[0], column + move[1]] : ends[event.key];
  if (!to) return;
  event.preventDefault();
  const next = heat.querySelector(`button[data-row="${to[0]}"][data-column="${to[1]}"]`);
  if (!next) return;
  here.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  next.scrollIntoView({ block: "nearest", inline: "nearest" });
}

for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => sortBy(button));
}
for (const input of document.querySelectorAll("input[type=search]")) {
  input.addEventListener("input", () => search(input));
}
for (const input of document.querySelectorAll(".slider input[type=range]")) {
  input.addEventListener("input", () => slide(input));
}
for (const heat of document.querySelectorAll(".heat")) {
  const data = JSON.parse(heat.querySelector(".cells-data").textContent);
  const table = heat.querySelector(".cells");
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) openCell(heat, data, button);
  });
  table.addEventListener("keydown", (event) => moveFocus(heat, event));
}
