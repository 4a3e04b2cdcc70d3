"use strict";

// What only works with scripts is shown by them.
for (const button of document.querySelectorAll("button[hidden]")) button.hidden = false;

function save(address, name) {
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
}

for (const button of document.querySelectorAll(".figure .save")) {
  button.addEventListener("click", () => save(button.closest(".figure").querySelector("img").src, button.dataset.name));
}

// Light or dark: as the reader's machine has it, until the button is pressed; nothing is remembered after the page.
const machine = matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");

function showTheme(dark) {
  theme.setAttribute("aria-pressed", String(dark));
  theme.textContent = dark ? "Light page" : "Dark page";
}

theme.addEventListener("click", () => {
  const dark = theme.getAttribute("aria-pressed") !== "true";
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  showTheme(dark);
});
machine.addEventListener("change", () => {
  if (!document.documentElement.style.colorScheme) showTheme(machine.matches);
});
showTheme(machine.matches);

// On paper folded tables are open; print.css leaves their first rows.
const folded = [...document.querySelectorAll("details.table")];
addEventListener("beforeprint", () => {
  for (const each of folded) {
    each.dataset.was = each.open ? "open" : "";
    each.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const each of folded) each.open = each.dataset.was === "open";
});
