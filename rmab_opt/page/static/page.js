/* Our own script: what a form alone cannot do. Everything else is HTML and htmx. */
"use strict";
document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (!target) return;
  if (target.closest("[data-print]")) window.print();
  const closer = target.closest("[data-close]");
  if (closer) document.querySelector(closer.dataset.close).replaceChildren();
  document.querySelectorAll("details[open] .menu").forEach((menu) => {
    if (!menu.parentElement.contains(target)) menu.parentElement.open = false;
  });
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelectorAll(".acts details[open]").forEach((one) => { one.open = false; one.firstElementChild.focus(); });
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    const search = document.querySelector("#q");
    if (search) { event.preventDefault(); search.focus(); }
  }
});
document.addEventListener("input", (event) => {
  const shown = event.target.dataset && event.target.dataset.shown;
  if (shown) document.querySelector(shown).textContent = event.target.value;
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "places") {
    const head = event.detail.target.querySelector("h2");
    if (head) { head.focus(); head.scrollIntoView({ block: "center" }); }
  }
  if (event.detail.target.id === "job") document.querySelectorAll(".acts details[open]").forEach((one) => { one.open = false; });
});
/* A server that has gone says nothing: the page does. */
["htmx:sendError", "htmx:timeout"].forEach((name) => document.addEventListener(name, () => {
  const job = document.querySelector("#job");
  if (!job || job.querySelector("[data-gone]")) return;
  const said = document.createElement("p");
  said.className = "warning"; said.dataset.gone = "yes"; said.setAttribute("role", "alert");
  said.textContent = "⚠ rmab-opt serve: no answer. Start it again; everything noted is kept.";
  job.replaceChildren(said);
}));
