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

for (const input of document.querySelectorAll(".slider input[type=range]")) {
  input.addEventListener("input", () => slide(input));
}
// Runs side by side: the cell that is pointed at is marked in every map, and the panel has all runs' scores of it.
function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function showSame(view, data, button) {
  for (const each of view.querySelectorAll(".same")) each.classList.remove("same");
  for (const each of view.querySelectorAll(`[data-same="${button.dataset.same}"]`)) {
    each.classList.add("same");
    const [scroll, place] = [each.closest(".scroll"), each.parentElement];
    const hidden = place.closest("tr").firstElementChild.offsetWidth; // under the layers' names
    if (each !== button && place.offsetLeft - hidden < scroll.scrollLeft) scroll.scrollLeft = place.offsetLeft - hidden;
    const end = place.offsetLeft + place.offsetWidth - scroll.clientWidth;
    if (each !== button && end > scroll.scrollLeft) scroll.scrollLeft = end;
  }
  const [row, column] = button.dataset.same.split("-").map(Number);
  const [short, layer] = data.layers[row];
  const { scores, notes } = data.cells[row][column];
  const table = document.createElement("table");
  data.runs.forEach((run, at) => {
    const line = table.insertRow();
    const heading = element("th", run);
    heading.scope = "row";
    line.append(heading, ...(scores[at] ?? ["no score there", ""]).map((text) => element("td", text)));
  });
  const where = element("p", `${short} at step ${data.steps[column]}, ${data.score}:`);
  where.title = layer;
  const caption = element("p", notes.length ? data.caption : "");
  caption.className = "hint";
  const panel = view.querySelector(".panel");
  panel.classList.add("shown");
  panel.replaceChildren(where, table, ...notes.map((note) => element("p", note)), caption);
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
for (const view of document.querySelectorAll(".compare")) {
  const data = JSON.parse(view.querySelector(".cells-data").textContent);
  for (const table of view.querySelectorAll(".cells")) {
    for (const kind of ["pointerover", "focusin", "click"]) {
      table.addEventListener(kind, (event) => {
        const button = event.target.closest("button");
        if (button) showSame(view, data, button);
      });
    }
    table.addEventListener("keydown", (event) => moveFocus(table, event));
  }
}
