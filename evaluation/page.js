// What the charts of every page share: its embedded figures, the colours of the reader's light or dark setting, legends.
const page = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const narrow = () => window.innerWidth <= 640;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

const layoutOf = (changes) => {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("muted"), linecolor: colour("line"), tickcolor: colour("line"), automargin: true };
  const { xaxis = {}, yaxis = {}, ...rest } = changes;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colour("sans"), size: 13, color: colour("ink") },
    margin: { l: 8, r: 12, t: 12, b: 8 }, showlegend: false, hovermode: "closest",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { family: colour("sans"), color: colour("ink") } },
    // A finger that scrolls the page must not zoom a chart.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
};

const axisTitle = (text) => ({ text, font: { size: 12, color: colour("muted") }, standoff: 10 });

// A legend beside the chart wraps like text, on a phone too; where its entries are buttons they hide and show.
const legend = (id, entries, kind, swatch, { text = (entry) => entry, chosen = null, toggle = null } = {}) => {
  document.getElementById(id).replaceChildren(...entries.map((entry) => {
    const item = document.createElement(kind);
    item.innerHTML = swatch(entry);
    item.append(text(entry));
    if (entry === chosen) item.className = "learned";
    if (kind === "button") {
      item.type = "button";
      item.ariaPressed = String(!hidden.has(entry));
      item.onclick = () => { hidden.delete(entry) || hidden.add(entry); toggle(); };
    }
    return item;
  }));
};

// Draws now and whenever the setting or the width class changes; returns the function that draws.
const show = (charts) => {
  const draw = () => {
    for (const [id, chart] of Object.entries(charts)) {
      const place = document.getElementById(id);
      if (place !== null) Plotly.react(place, ...chart(), { displayModeBar: false, responsive: true });
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("(max-width: 640px)").addEventListener("change", draw);
  return draw;
};
