// Tables: a heading sorts by its column; what has no value comes last either way.
function sortBy(button) {
  const heading = button.parentElement;
  const table = heading.closest("table");
  const column = [...heading.parentElement.children].indexOf(heading);
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const numeric = heading.classList.contains("number");
  const value = (row) => {
    const cell = row.children[column];
    return numeric ? parseFloat(cell.dataset.exact ?? "NaN") : cell.textContent;
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

// A CSV file of the rows that are seen, in their order, with the columns and values of the file in the run's folder.
function fileOf(table) {
  const file = JSON.parse(table.dataset.file);
  const headings = [...table.tHead.rows[0].cells];
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => {
    const values = { ...file.shared };
    headings.forEach((heading, place) => {
      const names = heading.dataset.names.split(",");
      const { textContent, dataset } = row.cells[place];
      const text = "shortened" in heading.dataset ? file.layers[textContent] ?? textContent : textContent;
      const own = heading.classList.contains("number") ? (dataset.exact ?? "").split(",") : [text];
      names.forEach((name, at) => { values[name] = own[at] ?? ""; });
    });
    return file.columns.map((name) => quoted(values[name] ?? "")).join(",");
  });
  return [file.columns.map(quoted).join(","), ...lines, ""].join("\n");
}

function saveTable(button) {
  const content = new Blob([fileOf(document.getElementById(button.dataset.saves))], { type: "text/csv" });
  const address = URL.createObjectURL(content);
  save(address, button.dataset.name);
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => sortBy(button));
}
for (const input of document.querySelectorAll("input[type=search]")) {
  input.addEventListener("input", () => search(input));
}
for (const button of document.querySelectorAll(".save[data-saves]")) {
  button.addEventListener("click", () => saveTable(button));
}
