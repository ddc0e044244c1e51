// The page is complete without this: tables, figures and the verdict need no script.
const show = (id) => { const tool = document.getElementById(id); if (tool) tool.hidden = false; };
const start = async () => {
  startTheme();
  startPrint();
  show("theme");
  const rows = await loadRows();
  show("ledger-tool");
  document.getElementById("ledger-fallback").hidden = true;
  startLedger(rows);
  if (!rows.data.maps) return;
  show("map-tool");
  document.documentElement.classList.add("scripted");
  await startMap(rows);
};
start().then(
  () => { document.documentElement.dataset.ready = "yes"; },
  (problem) => { // an old browser: the fallbacks stay
    document.documentElement.dataset.ready = "no";
    document.getElementById("ledger-fallback").append(` (${problem})`);
  },
);
