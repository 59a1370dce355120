// Draws the sizing report's charts.
const { comparison } = page;
const names = comparison.rows.map((row) => row.figures.name);
const baselines = names.filter((name) => ![comparison.learned, comparison.reference, comparison.plug_in].includes(name));
const dashes = ["solid", "dot", "dash", "solid", "dashdot", "longdash"];
const bold = (name) => (name === comparison.learned ? `<b>${name}</b>` : name);

// The learned sizer stands out, the rule and the plug-in can be told at a glance, the other baselines stay behind.
const lineOf = (name) => {
  if (name === comparison.learned) return { color: colour("learned"), width: 3, dash: "solid" };
  if (name === comparison.reference) return { color: colour("reference"), width: 2, dash: "solid" };
  if (name === comparison.plug_in) return { color: colour("plug-in"), width: 2, dash: "solid" };
  const place = baselines.indexOf(name);
  return { color: colour(`baseline-${1 + (place % 6)}`), width: 1.3, dash: dashes[place % 6] };
};

const forest = (key) => {
  const rows = comparison.rows.filter((row) => row[key] !== null);
  const tones = { "beats": colour("good"), "loses to": colour("bad"), "is not distinguishable from": colour("muted") };
  const known = (row) => row[key].low !== null;
  const trace = {
    type: "scatter", mode: "markers", x: rows.map((row) => row[key].mean), y: rows.map((row) => bold(row.figures.name)),
    marker: {
      color: rows.map((row) => tones[row[key].relation]), size: rows.map((row) => (row.figures.name === comparison.learned ? 13 : 9)),
      symbol: rows.map((row) => (row[key].relation === "is not distinguishable from" ? "circle-open" : "circle")), line: { width: 2 },
    },
    text: rows.map((row) => `${row.figures.name} ${row[key].relation} ${row[key].other}<br>${signed(row[key].mean)} R` +
      (known(row) ? `, 95 % ${signed(row[key].low)} to ${signed(row[key].high)}` : ", too few days for an interval")),
    hovertemplate: "%{text}<extra></extra>",
  };
  const whiskers = rows.filter(known).map((row) => ({
    type: "scatter", mode: "lines", x: [row[key].low, row[key].high], y: [bold(row.figures.name), bold(row.figures.name)], hoverinfo: "skip",
    line: { color: tones[row[key].relation], width: row.figures.name === comparison.learned ? 4 : 2 },
  }));
  // Zero is always in sight: it is what an interval is read against.
  const ends = [0, ...rows.flatMap((row) => (known(row) ? [row[key].low, row[key].high] : [row[key].mean]))];
  const least = Math.min(...ends), most = Math.max(...ends), room = 0.06 * (most - least || 1);
  const layout = layoutOf({
    xaxis: { title: axisTitle("R per signal"), zeroline: true, zerolinewidth: 1.5, nticks: narrow() ? 5 : 8, range: [least - room, most + room] },
    yaxis: { autorange: "reversed", type: "category", showgrid: false, ticklabelstandoff: 6, categoryorder: "array", categoryarray: rows.map((row) => bold(row.figures.name)) },
  });
  return [[...whiskers, trace], layout];
};

const equity = () => {
  const order = [...baselines.toReversed(), comparison.reference, comparison.plug_in, comparison.learned].filter((name) => name in page.curves);
  const shape = (name, values, axis) => ({
    type: "scatter", mode: "lines", name, x: page.curves[name].time_ms, y: values, yaxis: axis, xaxis: "x",
    line: { ...lineOf(name), shape: "hv" }, opacity: baselines.includes(name) ? 0.85 : 1, visible: !hidden.has(name),
  });
  const traces = order.flatMap((name) => [
    { ...shape(name, page.curves[name].equity, "y"), hovertemplate: `${name}: %{y:.3f}<br>%{x|%Y-%m-%d}<extra></extra>` },
    { ...shape(name, page.curves[name].drawdown.map((loss) => -loss), "y2"), hovertemplate: `${name}: %{y:.1%}<br>%{x|%Y-%m-%d}<extra></extra>` },
  ]);
  const layout = layoutOf({
    xaxis: { type: "date", anchor: "y2", showgrid: false, tickangle: 0, nticks: narrow() ? 4 : 10 },
    yaxis: { domain: [0.36, 1], title: axisTitle("equity"), zeroline: false },
  });
  layout.yaxis2 = { ...layout.yaxis, domain: [0, 0.3], title: axisTitle("drawdown"), tickformat: ".0%", zeroline: true };
  legend("equity-legend", order.toReversed(), "button", (name) => {
    const { color, width, dash } = lineOf(name);
    const gaps = { solid: "none", dot: "2 3", dash: "6 4", dashdot: "6 3 2 3", longdash: "9 4" }[dash];
    return `<svg width="26" height="8"><line x1="0" y1="4" x2="26" y2="4" stroke="${color}" stroke-width="${width + 0.5}" stroke-dasharray="${gaps}"/></svg>`;
  }, { chosen: comparison.learned, toggle: () => draw() });
  return [traces, layout];
};

const sizes = () => {
  const tiers = Object.keys(page.sizes);
  const traces = tiers.map((tier, place) => ({
    type: "bar", orientation: "h", name: tier, y: names.map(bold), x: comparison.rows.map((row) => row.figures.tiers[tier]),
    marker: { color: colour(`tier-${place}`), line: { color: colour("card"), width: 1 } }, hovertemplate: `%{y}: ${tier} %{x:.1%}<extra></extra>`,
  }));
  const layout = layoutOf({
    barmode: "stack", bargap: 0.3, margin: { l: 8, r: 28, t: 12, b: 8 }, // or its label of 100 % has no room
    xaxis: { tickformat: ".0%", range: [0, 1.004], showgrid: false, zeroline: false, nticks: narrow() ? 3 : 6 }, yaxis: { autorange: "reversed", type: "category", showgrid: false, ticklabelstandoff: 6 },
  });
  legend("sizes-legend", tiers, "span", (tier) => `<svg width="14" height="14"><rect width="14" height="14" rx="3" fill="${colour(`tier-${tiers.indexOf(tier)}`)}"/></svg>`, { text: (tier) => `${tier} ${page.sizes[tier]}×` });
  return [traces, layout];
};

const reliability = () => {
  const { stated, happened, low, high, group } = page.reliability;
  const least = Math.max(0, Math.min(...stated, ...low) - 0.04), most = Math.min(1, Math.max(...stated, ...high) + 0.04);
  const diagonal = { type: "scatter", mode: "lines", x: [least, most], y: [least, most], hoverinfo: "skip", line: { color: colour("muted"), dash: "dot", width: 1.5 } };
  const groups = {
    type: "scatter", mode: "markers", x: stated, y: happened, marker: { color: colour("learned"), size: 10 },
    error_y: { type: "data", symmetric: false, array: high.map((top, i) => top - happened[i]), arrayminus: low.map((bottom, i) => happened[i] - bottom), color: colour("learned"), thickness: 1.5, width: 0 },
    text: group.map((count) => `${count} signals`), hovertemplate: "stated %{x:.1%}, happened %{y:.1%}<br>%{text}<extra></extra>",
  };
  const layout = layoutOf({
    xaxis: { title: axisTitle("stated probability of a win"), tickformat: ".0%", range: [least, most], zeroline: false },
    yaxis: { title: axisTitle("share that won"), tickformat: ".0%", range: [least, most], zeroline: false },
  });
  return [[diagonal, groups], layout];
};

const learning = () => {
  const trace = { type: "scatter", mode: "lines+markers", x: page.learning.steps, y: page.learning.score, line: { color: colour("learned"), width: 2.5 }, marker: { size: 5 }, hovertemplate: "%{x:,} steps: %{y:.3f}<extra></extra>" };
  return [[trace], layoutOf({ xaxis: { title: axisTitle("environment steps"), rangemode: "tozero", nticks: 6 }, yaxis: { title: axisTitle(page.learning.score_name), zeroline: true } })];
};

// One market's three probabilities, walk-forward: what was stated against what happened.
const classes = { down: "bad", flat: "muted", up: "good" };
const predictor = (report) => {
  const groups = Object.entries(report.reliability);
  const ends = groups.flatMap(([, { stated, happened }]) => [...stated, ...happened]);
  const least = Math.max(0, Math.min(...ends) - 0.04), most = Math.min(1, Math.max(...ends) + 0.04);
  const diagonal = { type: "scatter", mode: "lines", x: [least, most], y: [least, most], hoverinfo: "skip", line: { color: colour("muted"), dash: "dot", width: 1.5 } };
  const points = groups.map(([name, { stated, happened, group }]) => ({
    type: "scatter", mode: "markers", name, x: stated, y: happened, marker: { color: colour(classes[name]), size: 8 },
    text: group.map((count) => `${count} bars`), hovertemplate: `${name}: stated %{x:.1%}, happened %{y:.1%}<br>%{text}<extra></extra>`,
  }));
  legend("predictors-legend", Object.keys(classes), "span", (name) => `<svg width="14" height="14"><circle cx="7" cy="7" r="5" fill="${colour(classes[name])}"/></svg>`);
  const axis = { tickformat: ".0%", range: [least, most], zeroline: false };
  return [[diagonal, ...points], layoutOf({ xaxis: { ...axis, title: axisTitle("stated") }, yaxis: { ...axis, title: axisTitle("happened") } })];
};

const charts = {
  "versus-reference": () => forest("versus_reference"), "versus-plug-in": () => forest("versus_plug_in"), equity, sizes, reliability, learning,
};
Object.values(page.predictors ?? {}).forEach((report, place) => { charts[`predictor-${place}`] = () => predictor(report); });
const draw = show(charts);
