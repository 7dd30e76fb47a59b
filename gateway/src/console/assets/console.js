// What HTML alone cannot do. Everything is found when it is used, so that pieces that htmx brings
// work as well.
"use strict";

document.documentElement.classList.add("js-on");

// data-copy="id": copies the text, or the value, of the element with that id.
async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  if (!source) return;
  const text = "value" in source ? source.value : source.textContent.trim();
  let copied = false;
  try {
    await navigator.clipboard.writeText(text);
    copied = true;
  } catch {
    // Without a secure context there is no clipboard: mark it, for the person to copy.
    getSelection().selectAllChildren(source);
    copied = document.execCommand("copy");
  }
  const label = button.dataset.label || button.textContent;
  button.dataset.label = label;
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  announce(copied ? "Copied" : "Marked: press Ctrl+C to copy");
  setTimeout(() => { button.textContent = label; }, 2000);
}

// Says something to screen readers.
function announce(text) {
  // What is outside of an open dialog is not read out.
  const place = document.querySelector("dialog[open]") || document.body;
  let live = place.querySelector(":scope > .live");
  if (!live) {
    live = document.createElement("div");
    live.className = "live visually-hidden";
    live.setAttribute("role", "status");
    place.append(live);
  }
  live.textContent = "";
  setTimeout(() => { live.textContent = text; }, 50);
}

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (!target) return;
  const copies = target.closest("[data-copy]");
  if (copies) {
    event.preventDefault();
    copy(copies);
    return;
  }
  // data-opens="id": opens that dialog instead of following the link.
  const opens = target.closest("[data-opens]");
  if (opens) {
    const dialog = document.getElementById(opens.dataset.opens);
    if (dialog instanceof HTMLDialogElement) {
      event.preventDefault();
      dialog.showModal();
      return;
    }
  }
  // data-closes: closes the dialog that it is in.
  const closes = target.closest("[data-closes]");
  if (closes) {
    const dialog = closes.closest("dialog");
    if (dialog) {
      event.preventDefault();
      dialog.close();
      return;
    }
  }
  // A menu closes when the person goes elsewhere.
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// data-submits: sends its form when the choice changes.
document.addEventListener("change", (event) => {
  const submits = event.target instanceof Element && event.target.closest("[data-submits]");
  if (submits && submits.form) submits.form.requestSubmit();
});

// data-shown: a dialog that is open from the start.
function showDialogs(root) {
  for (const dialog of root.querySelectorAll("dialog[data-shown]")) {
    dialog.removeAttribute("data-shown");
    dialog.removeAttribute("open");
    dialog.showModal();
  }
}
showDialogs(document);
document.addEventListener("htmx:load", (event) => showDialogs(event.detail.elt.parentNode || document));
