// Draws the experiment page's charts.
const byName = new Map(page.trials.map((trial) => [trial.name, trial]));
const drawn = page.drawn.map((name) => byName.get(name));
const places = ["learned", "plug-in", "baseline-1", "baseline-2", "baseline-3", "baseline-4", "baseline-5", "baseline-6"];
const lineOf = (name) => {
  if (name === page.best) return { color: colour("learned"), width: 3 };
  return { color: colour(places[1 + (page.drawn.indexOf(name) % 7)]), width: 1.3 };
};
const stroke = (name) => `<svg width="26" height="8"><line x1="0" y1="4" x2="26" y2="4" stroke="${lineOf(name).color}" stroke-width="${lineOf(name).width + 0.5}"/></svg>`;

// A seed begins anew, so that its line must not hang on that of the seed before.
const apart = (scores, value) => {
  const x = [], y = [];
  scores.forEach((score, i) => {
    if (i && score.seed !== scores[i - 1].seed) { x.push(null); y.push(null); }
    x.push(score.steps);
    y.push(value(score));
  });
  return { x, y };
};

const curves = () => {
  const traces = drawn.toReversed().map((trial) => ({
    type: "scatter", mode: "lines", name: trial.name, ...apart(trial.scores, (score) => score.score), line: lineOf(trial.name),
    opacity: trial.name === page.best ? 1 : 0.8, visible: !hidden.has(trial.name), hovertemplate: `${trial.name}: %{y:.4f} R at %{x:,} steps<extra></extra>`,
  }));
  legend("curves-legend", page.drawn, "button", stroke, { chosen: page.best, toggle: () => draw() });
  return [traces, layoutOf({ xaxis: { title: axisTitle("environment steps over all seeds"), rangemode: "tozero", nticks: narrow() ? 4 : 8 }, yaxis: { title: axisTitle("R per signal"), zeroline: true } })];
};

// Plotly's own parallel coordinates need WebGL and know no dark setting; these are lines like all others.
const parallel = () => {
  const scored = drawn.filter((trial) => trial.objective !== null);
  const objectives = scored.map((trial) => trial.objective);
  const least = Math.min(...objectives), most = Math.max(...objectives);
  const axes = [...page.axes.map((axis) => ({ ...axis, of: (trial) => trial.settings[axis.key] })), { key: "objective", low: least, high: most, choices: [], logarithmic: false, of: (trial) => trial.objective }];
  const share = (axis, value) => {
    if (axis.choices.length) return axis.choices.length === 1 ? 0.5 : axis.choices.indexOf(String(value)) / (axis.choices.length - 1);
    const scale = axis.logarithmic ? Math.log : Number;
    return axis.high > axis.low ? (scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low)) : 0.5;
  };
  const text = (value) => (typeof value === "number" ? String(Number(value.toPrecision(3))) : String(value));
  const shade = (trial) => colour(`tier-${1 + Math.round(4 * (most > least ? (trial.objective - least) / (most - least) : 1))}`);
  const lines = scored.toReversed().map((trial) => ({
    type: "scatter", mode: "lines", x: axes.map((_, i) => i), y: axes.map((axis) => share(axis, axis.of(trial))), name: trial.name,
    line: { color: shade(trial), width: trial.name === page.best ? 4 : 1.6 },
    text: axes.map((axis) => `${trial.name}: ${axis.key} ${text(axis.of(trial))}, objective ${signed(trial.objective)} R`), hovertemplate: "%{text}<extra></extra>",
  }));
  const marks = axes.flatMap((axis, i) => {
    const ends = axis.choices.length ? axis.choices.map((choice) => [share(axis, choice), choice]) : [[0, text(axis.low)], [1, text(axis.high)]];
    return ends.map(([y, label]) => ({ x: i, y, text: label, showarrow: false, xanchor: i === axes.length - 1 ? "right" : "left", xshift: i === axes.length - 1 ? -5 : 5, font: { size: 11, color: colour("muted") }, bgcolor: colour("card"), opacity: 0.9 }));
  });
  const layout = layoutOf({
    xaxis: { tickvals: axes.map((_, i) => i), ticktext: axes.map((axis) => axis.key.split(".").at(-1).replaceAll("_", "<br>")), range: [-0.45, axes.length - 0.55], side: "top", zeroline: false, gridcolor: colour("muted"), fixedrange: true, tickangle: 0 },
    yaxis: { visible: false, range: [-0.06, 1.06], fixedrange: true }, annotations: marks,
  });
  return [lines, layout];
};

const importance = () => {
  const keys = Object.keys(page.importance).toSorted((a, b) => page.importance[a] - page.importance[b]);
  const trace = { type: "bar", orientation: "h", y: keys.map((key) => key.split(".").at(-1).replaceAll("_", " ")), x: keys.map((key) => page.importance[key]), marker: { color: colour("learned") }, hovertemplate: "%{y}: %{x:.0%}<extra></extra>" };
  return [[trace], layoutOf({ xaxis: { tickformat: ".0%", rangemode: "tozero", nticks: 6 }, yaxis: { type: "category", showgrid: false, ticklabelstandoff: 6 } })];
};

const mix = () => {
  const trial = byName.get(document.getElementById("mix-trial").value);
  const traces = page.tiers.map((tier, place) => ({
    type: "scatter", mode: "lines", stackgroup: "shares", name: tier, x: trial.scores.map((score) => score.steps), y: trial.scores.map((score) => score.tiers[tier]),
    line: { width: 0.5, color: colour(`tier-${place}`) }, fillcolor: colour(`tier-${place}`), hovertemplate: `${tier} %{y:.1%} at %{x:,} steps<extra></extra>`,
  }));
  legend("mix-legend", page.tiers, "span", (tier) => `<svg width="14" height="14"><rect width="14" height="14" rx="3" fill="${colour(`tier-${page.tiers.indexOf(tier)}`)}"/></svg>`);
  return [traces, layoutOf({ xaxis: { title: axisTitle("environment steps over all seeds"), nticks: 5, showgrid: false, zeroline: false }, yaxis: { tickformat: ".0%", range: [0, 1], showgrid: false, zeroline: false } })];
};

const draw = show({ curves, parallel, importance, mix });
document.getElementById("mix-trial")?.addEventListener("change", draw);
