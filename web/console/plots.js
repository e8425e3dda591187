// Plots: stacked bars over time, as SVG. With the pointer or the arrow keys, a step is looked at in figures.

import { h, svg } from "./page.js";

const WIDTH = 640;
const HEIGHT = 170;
const LEFT = 52;
const BOTTOM = 20;
const TOP = 8;

/**
 * Return a plot.
 *
 * `steps` are { at, values } with a number for each of `series`, which are { name, color }: color is a number from 1.
 */
export function bars({ title, steps, series, text = (value) => value.toLocaleString("en-GB") }) {
  const totals = steps.map(({ values }) => values.reduce((sum, value) => sum + value, 0));
  const top = niceTop(Math.max(...totals, 0));
  const width = (WIDTH - LEFT) / Math.max(steps.length, 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", "aria-hidden": "true" });
  for (const part of [0, 0.5, 1]) {
    drawing.append(
      svg("line", { x1: LEFT, x2: WIDTH, y1: y(top * part), y2: y(top * part), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(top * part) + 4, class: "label end" }, text(top * part)),
    );
  }
  steps.forEach(({ at, values }, number) => {
    const x = LEFT + number * width;
    let below = 0;
    values.forEach((value, index) => {
      if (value > 0) {
        const height = Math.max(0.6, y(below) - y(below + value));
        drawing.append(svg("rect", { x: x + width * 0.08, width: width * 0.84, y: y(below) - height, height, class: `series-${series[index].color}` }));
        below += value;
      }
    });
    if (number % Math.ceil(steps.length / 6) === 0) {
      drawing.append(svg("text", { x, y: HEIGHT - 4, class: "label" }, clock(at)));
    }
  });
  const cursor = svg("rect", { y: TOP, width, height: HEIGHT - TOP - BOTTOM, class: "cursor", visibility: "hidden" });
  drawing.append(cursor);

  const readout = h("output", { class: "readout" });
  let current = null;
  const look = (number) => {
    current = number === null ? null : Math.min(steps.length - 1, Math.max(0, number));
    cursor.setAttribute("visibility", current === null ? "hidden" : "visible");
    if (current === null || !steps.length) {
      readout.replaceChildren(sumText(totals, text));
      return;
    }
    cursor.setAttribute("x", LEFT + current * width);
    const { at, values } = steps[current];
    readout.replaceChildren(`${clock(at)}: ${series.map(({ name }, index) => `${name} ${text(values[index])}`).join(", ")}`);
  };
  look(null);
  const legend = h("span", { class: "legend" }, series.map(({ name, color }) => h("span", {}, svg("svg", { viewBox: "0 0 10 10", class: "key" }, svg("rect", { width: 10, height: 10, rx: 2, class: `series-${color}` })), name)));
  return h(
    "figure",
    {
      tabindex: "0",
      "aria-label": `${title}. Arrow keys show the steps.`,
      onpointermove: ({ clientX }) => {
        const box = drawing.getBoundingClientRect();
        const x = ((clientX - box.left) / box.width) * WIDTH;
        look(x < LEFT ? null : Math.floor((x - LEFT) / width));
      },
      onpointerleave: () => look(null),
      onblur: () => look(null),
      onkeydown: (event) => {
        const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (move) {
          event.preventDefault();
          look(current === null ? steps.length - 1 : current + move);
        }
      },
    },
    h("figcaption", {}, h("strong", {}, title), legend),
    drawing,
    readout,
  );
}

/** Return bars that lie, one for each of `items`: { name, value, title }. */
export function ranking(items, empty) {
  const top = Math.max(...items.map(({ value }) => value), 1);
  if (!items.length) {
    return h("p", { class: "faint" }, empty);
  }
  return h(
    "ul",
    { class: "ranking" },
    items.map(({ name, value }) =>
      h("li", {}, h("span", { class: "name" }, name), h("meter", { min: 0, max: top, value, "aria-hidden": "true" }), h("span", { class: "amount" }, value.toLocaleString("en-GB"))),
    ),
  );
}

function sumText(totals, text) {
  return `${text(totals.reduce((sum, value) => sum + value, 0))} in all`;
}

function clock(at) {
  return new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

// The next of 2, 4, 10, 20, 40, 100, …: its half is a round number as well.
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 4, 10].map((factor) => factor * power).find((top) => top >= Math.max(value, 2));
}
