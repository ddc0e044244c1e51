// Light or dark: as the system says until the reader says otherwise; nothing is stored.
const startTheme = () => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = isDark() ? "Light page" : "Dark page"; };
  const tell = () => { name(); dispatchEvent(new Event("themechange")); };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; tell(); });
  system.addEventListener("change", tell);
  name();
};
const startPrint = () => {
  let opened = [];
  addEventListener("beforeprint", () => {
    // what is folded for the screen is wanted on paper; the text of rows stays folded
    opened = [...document.querySelectorAll("details.block, .why > details")].filter((block) => !block.open);
    for (const block of opened) block.open = true;
  });
  addEventListener("afterprint", () => { for (const block of opened) block.open = false; });
};
