"use strict";
(() => {
  // the page works without this: the search box only appears where the script runs
  const box = document.getElementById("search");
  if (box) {
    const rows = [...document.querySelectorAll("#removed-table tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const query = document.getElementById("query");
    const matches = document.getElementById("matches");
    const search = () => {
      const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        found += !row.hidden;
      });
      matches.textContent = words.length ? `${found} of ${rows.length} shown` : "";
    };
    query.addEventListener("input", search);
    box.hidden = false;
  }
  addEventListener("beforeprint", () => {
    for (const block of document.querySelectorAll("details.block")) block.open = true;
  });
})();
