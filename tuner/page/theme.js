// theme.js: applies the stored theme before the first paint; loaded without defer for that.
"use strict";
(() => {
  const themes = ["auto", "light", "dark"];
  const read = () => {
    try {
      return localStorage.getItem("pod-attn-theme");
    } catch {
      return null; // Storage is blocked: the choice lives as long as the page.
    }
  };
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
  };
  apply(themes.includes(read()) ? read() : "auto");

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = `Theme: ${document.documentElement.dataset.theme}`;
    };
    label();
    button.addEventListener("click", () => {
      const now = themes.indexOf(document.documentElement.dataset.theme);
      const next = themes[(now + 1) % themes.length];
      apply(next);
      label();
      try {
        localStorage.setItem("pod-attn-theme", next);
      } catch {
        // Same as in read().
      }
    });
  });
})();
