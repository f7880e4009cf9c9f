"use strict";

// Sorting: the best first, then the other way round. Cells without a value stay at the end.
for (const button of document.querySelectorAll(".scores thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const column = [...head.parentNode.children].indexOf(head);
    const first = button.dataset.lower === "1" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const cell of head.parentNode.children) cell.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    const body = head.closest("table").tBodies[0];
    const value = (row) => row.cells[column].dataset.value;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return sign * (column ? x - y : x.localeCompare(y));
    });
    body.append(...rows);
  });
}

// The worst pictures of the chosen method, its worst one at the head.
for (const choice of document.querySelectorAll("select.worst")) {
  choice.addEventListener("change", () => {
    const body = choice.closest("section").querySelector(".gallery").tBodies[0];
    const place = (row) => JSON.parse(row.dataset.places)[choice.value];
    for (const row of body.rows) row.hidden = place(row) === undefined;
    const shown = [...body.rows].filter((row) => !row.hidden);
    body.append(...shown.sort((a, b) => place(a) - place(b)));
  });
}

const data = JSON.parse(document.getElementById("data").textContent);
const colours = ["#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#6cc5b0", "#ff8ab7",
  "#9c6b4e", "#97bbf5", "#9498a0"];
const levels = Array.from({ length: 256 }, (_, level) => level);

function lines(points) {
  return data.methods.map((method, index) => ({
    label: method,
    data: points(index),
    borderColor: colours[index % colours.length],
    backgroundColor: colours[index % colours.length],
    borderDash: index < colours.length ? [] : [6, 3],
    borderWidth: 2,
    pointRadius: 0,
    pointHoverRadius: 4,
  }));
}

function lineChart(points, x, y, limit) {
  return {
    type: "scatter",
    data: { datasets: lines(points).map((line) => ({ ...line, showLine: true })) },
    options: {
      interaction: { mode: "nearest", axis: "x", intersect: false },
      scales: {
        x: { min: 0, max: limit, title: { display: true, text: x } },
        y: { min: 0, max: 1, title: { display: true, text: y } },
      },
      plugins: { tooltip: { callbacks: { label: (item) =>
        `${item.dataset.label}: ${x} ${+item.parsed.x.toFixed(3)}, ${y} ${item.parsed.y.toFixed(3)}`,
      } } },
    },
  };
}

function histogram(curves, name) {
  const bins = curves[0].histograms[name].length;
  const labels = Array.from({ length: bins }, (_, bin) => (bin / bins).toFixed(2));
  return {
    type: "bar",
    data: { labels, datasets: lines((index) => curves[index].histograms[name]) },
    options: {
      interaction: { mode: "index", intersect: false },
      scales: {
        x: {
          title: { display: true, text: "score, from" },
          grid: { display: false },
          ticks: { maxRotation: 0, maxTicksLimit: 11 },
        },
        y: { title: { display: true, text: "pictures" }, ticks: { precision: 0 } },
      },
    },
  };
}

function configuration(kind, curves, name) {
  if (kind === "histogram") return histogram(curves, name);
  if (kind === "pr") {
    const points = (index) => curves[index].recall.map((x, i) => ({ x, y: curves[index].precision[i] }));
    return lineChart(points, "recall", "precision", 1);
  }
  const points = (index) => levels.map((x) => ({ x, y: curves[index][kind][x] }));
  return lineChart(points, "threshold", kind === "f_measure" ? "F" : "E", 255);
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  Chart.defaults.color = style.getPropertyValue("--soft");
  Chart.defaults.borderColor = style.getPropertyValue("--line");
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.plugins.legend.labels.boxWidth = 14;
  Chart.defaults.plugins.legend.labels.boxHeight = 3;
  Chart.defaults.animation = false;
  Chart.defaults.maintainAspectRatio = false;
  for (const group of document.querySelectorAll(".charts")) {
    const curves = data.curves[group.dataset.dataset];
    const name = group.querySelector("select").value;
    for (const canvas of group.querySelectorAll("canvas")) {
      Chart.getChart(canvas)?.destroy();
      new Chart(canvas, configuration(canvas.dataset.chart, curves, name));
    }
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
for (const select of document.querySelectorAll(".charts select")) select.addEventListener("change", draw);
