const charts = JSON.parse(document.getElementById("data").textContent);

// Tables: a click on a head sorts, again the other way round; words filter, all of them.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.cells[column];
      if ("value" in cell.dataset) return Number(cell.dataset.value);
      return head.classList.contains("number") ? Infinity : cell.textContent;
    };
    const order = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true});
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === Infinity || b === Infinity) return (a === Infinity) - (b === Infinity);
      return up ? order(a, b) : order(b, a);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}
for (const input of document.querySelectorAll("[data-filter]")) {
  const rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const count = document.querySelector(`[data-count="${input.dataset.filter}"]`);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, at) => {
      row.hidden = !words.every((word) => texts[at].includes(word));
      shown += !row.hidden;
    });
    count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  });
}

// Plots: each is drawn when it comes into sight.
const ink = "currentColor";
const config = {
  background: "transparent",
  font: "system-ui, sans-serif",
  axis: {labelColor: ink, titleColor: ink, tickColor: ink, domainColor: ink, gridColor: "#8883",
    labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal"},
  legend: {labelColor: ink, titleColor: ink, labelFontSize: 12},
  view: {stroke: "#8885"},
};
const records = (columns) => {
  const names = Object.keys(columns);
  return (columns[names[0]] ?? []).map((_, at) =>
    Object.fromEntries(names.map((name) => [name, columns[name][at]])));
};
async function show(number) {
  const place = document.getElementById(`chart-${number}`);
  const {spec, choices} = charts[number];
  const names = Object.keys(choices);
  const select = document.querySelector(`select[data-chart="${number}"]`);
  const chosen = select ? select.value : names[0];
  const data = names.length ? {values: records(choices[chosen])} : spec.data;
  const legend = window.innerWidth < 640 ? {...config.legend, orient: "bottom", columns: 1} : config.legend;
  await window.vegaEmbed(place, {...spec, data}, {
    actions: {export: true, source: false, compiled: false, editor: false},
    mode: "vega-lite", renderer: "svg", config: {...config, legend}, tooltip: {theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"},
  });
  place.dataset.drawn = "yes";
}
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    show(Number(entry.target.id.slice("chart-".length)));
  }
}, {rootMargin: "200px"});
document.querySelectorAll(".chart").forEach((place) => seen.observe(place));
for (const select of document.querySelectorAll("select[data-chart]")) {
  select.addEventListener("change", () => show(Number(select.dataset.chart)));
}
