// The theme is the system's until the reader chooses one; the choice is kept where the browser lets it.
const root = document.documentElement;
const kept = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
const asked = new URLSearchParams(location.search).get("theme");
if (asked || kept) root.dataset.theme = asked || kept;

addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* A private window forgets it. */ }
  });
  document.querySelector("nav.side [aria-current]")?.scrollIntoView({ block: "nearest" });
});
