// Things to play with, without a server and without a library.
//
// The pages hold <div class="explorable" data-explorable="NAME">; each is filled below if scripts
// run, and stays out of the way if they do not. The formulas are those of gmlib; the tests hold the
// two against each other in a browser.
"use strict";

(() => {
  // --- The closed form ---------------------------------------------------------------------------

  // As in gmlib/functional.py, where it says how they were found; highest power first.
  const P = [
    5.9640639404875716e-8, 1.9584330190096886e-6, 3.1942233923967715e-5, 0.0003362262153403255,
    0.0025117984292400293, 0.01387140169189651, 0.057341851652347246, 0.17571209352806902,
    0.38452657087983757, 0.54939675327890132, 0.39894228040143268,
  ];
  const Q = [
    5.9640639404818626e-8, 1.9584330190236932e-6, 3.2061515201206557e-5, 0.00034014308148576281,
    0.0025753250482116043, 0.014532103697711361, 0.062176295463350488, 0.20151988786362008,
    0.48545480406824645, 0.83092439957923076, 0.91628150613600063, 0.5,
  ];
  const S = [
    1.4949691304919017e-7, 4.9090635794557415e-6, 8.051579744390532e-5, 0.00085752132905175008,
    0.0065354498889213468, 0.037269376156597243, 0.16214900518315233, 0.5399058965090908,
    1.360589444604389, 2.5232634958981519, 3.2606423057162801, 2.6304475730748661, 1.0,
  ];
  const polynomial = (coefficients, a) => coefficients.reduce((sum, c) => sum * a + c);

  /** E[relu(s)] and P(s > 0) for s ~ N(m, t^2). */
  function reluMoments(m, t) {
    if (t === 0) return [Math.max(m, 0), m > 0 ? 1 : m < 0 ? 0 : 0.5];
    const z = m / t;
    const a = Math.min(Math.abs(z), 200);
    const bell = Math.exp(-0.5 * a * a) / polynomial(S, a);
    const tail = bell * polynomial(Q, a);
    return [Math.max(m, 0) + t * bell * polynomial(P, a), z < 0 ? tail : 1 - tail];
  }

  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

  /** Output of a GM layer for one input x; mu and sigma are K lists of d, U K lists of C of d. */
  function gmLayer(x, mu, sigma, U, v) {
    const out = new Array(v[0].length).fill(0);
    mu.forEach((mean, k) => {
      const t2x = x.map((value, i) => sigma[k][i] ** 2 * value); // sigma^2 x
      const [F, G] = reluMoments(dot(mean, x), Math.sqrt(dot(t2x, x)));
      U[k].forEach((row, c) => {
        out[c] += ((dot(row, mean) + v[k][c]) * F + dot(row, t2x) * G) / mu.length;
      });
    });
    return out;
  }

  /** Predicted standard deviation of outputs over initializations: gmlib.init.output_std. */
  function outputStd(gamma, d, K, q) {
    const c = 1 / 3 + Math.sqrt(3) / (2 * Math.PI);
    const g2 = gamma * gamma;
    return g2 * Math.sqrt((q / K) * (c * (1 + (d + 2) * g2) + g2));
  }

  // --- Random numbers that are the same every time -------------------------------------------------

  function normals(seed, count) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let r = Math.imul(state ^ (state >>> 15), 1 | state);
      r = (r + Math.imul(r ^ (r >>> 7), 61 | r)) ^ r;
      return (((r ^ (r >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    return Float64Array.from({ length: count }, () =>
      Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
  }

  function deviation(values) {
    let mean = 0, squares = 0;
    for (const value of values) mean += value / values.length;
    for (const value of values) squares += (value - mean) ** 2 / values.length;
    return Math.sqrt(squares);
  }

  /** A layer's random start in units of gamma, and what its outputs are made of. */
  class Start {
    static C = 10;
    static N = 64;

    constructor(d, K, seed = 0) {
      const { C, N } = Start;
      Object.assign(this, { d, K });
      // Inputs like standardized images: mean 0 and standard deviation 1 over their pixels.
      this.x = Array.from({ length: N }, (_, n) => {
        const raw = normals(1000 + n, d);
        const mean = raw.reduce((sum, value) => sum + value, 0) / d;
        const centred = raw.map((value) => value - mean);
        const std = Math.sqrt(dot(centred, centred) / d);
        return centred.map((value) => value / std);
      });
      this.components = Array.from({ length: K }, (_, k) => {
        const drawn = normals(7919 * (k + 1) + 104729 * seed, (C + 1) * d + C);
        const mu = drawn.subarray(0, d);
        const U = Array.from({ length: C }, (_, c) => drawn.subarray((c + 1) * d, (c + 2) * d));
        const v = drawn.subarray((C + 1) * d);
        // The norm of every input is the square root of d, so z does not depend on gamma.
        const moments = this.x.map((x) => reluMoments(dot(mu, x), Math.sqrt(d)));
        return { mu, U, v, moments, Umu: U.map((row) => dot(row, mu)),
          Ux: U.map((row) => this.x.map((x) => dot(row, x))) };
      });
    }

    /** All outputs, input by input, of the layer with parameters of scale gamma. */
    logits(gamma) {
      const { C, N } = Start;
      const out = new Float64Array(N * C);
      const cubed = gamma ** 3 / this.K, squared = gamma ** 2 / this.K;
      for (const { v, moments, Umu, Ux } of this.components) {
        for (let n = 0; n < N; n++) {
          const [F, G] = moments[n];
          for (let c = 0; c < C; c++) {
            out[n * C + c] += cubed * (Umu[c] * F + Ux[c][n] * G) + squared * v[c] * F;
          }
        }
      }
      return out;
    }

    /** The same parameters as gmLayer takes them. */
    parameters(gamma) {
      const scaled = (values) => Array.from(values, (value) => gamma * value);
      const { components, d } = this;
      return {
        x: this.x.map((x) => Array.from(x)),
        mu: components.map((own) => scaled(own.mu)),
        sigma: components.map(() => new Array(d).fill(gamma)),
        U: components.map((own) => own.U.map(scaled)),
        v: components.map((own) => scaled(own.v)),
      };
    }
  }

  // --- Elements -----------------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function svg(tag, attributes = {}, ...children) {
    const node = document.createElementNS(SVG, tag);
    set(node, attributes);
    node.append(...children);
    return node;
  }

  function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  }

  const number = (value, digits = 2) =>
    (Number(value.toFixed(digits)) + 0).toFixed(digits).replace("-", "−"); // + 0: no negative zero

  /** Two significant digits: 24, 0.031, 8,200. */
  const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 2 });

  const limit = (value, low, high) => Math.min(Math.max(value, low), high);

  /** Show values side by side, each in a place of its own. */
  function report(node, ...values) {
    node.replaceChildren(...values.flatMap((text) => [element("span", {}, text), " "]));
  }

  const group = (title, ...rows) => element("div", { class: "group", role: "group",
    "aria-label": title }, element("span", { class: "caption" }, title), ...rows);

  let count = 0;

  /** A labelled slider; `show` makes the text beside it. */
  function slider(label, { min, max, step, value, show = number }, onChange) {
    const id = `explorable-${++count}`;
    const input = element("input", { type: "range", id, min, max, step, value });
    const shown = element("output", { for: id });
    const update = () => {
      shown.textContent = show(Number(input.value));
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", () => { update(); onChange(); });
    update();
    return { input, update, get value() { return Number(input.value); },
      row: element("div", { class: "slider" }, element("label", { for: id }, label), input, shown) };
  }

  function button(text, onClick) {
    const node = element("button", { type: "button" }, text);
    node.addEventListener("click", onClick);
    return node;
  }

  /** A picture with x to the right and y up, from [x0, x1] by [y0, y1] to pixels. */
  class Plane {
    constructor([x0, x1], [y0, y1], width, height, label) {
      Object.assign(this, { x0, x1, y0, y1, width, height });
      this.svg = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
    }
    x(value) { return ((value - this.x0) / (this.x1 - this.x0)) * this.width; }
    y(value) { return ((this.y1 - value) / (this.y1 - this.y0)) * this.height; }
    add(tag, attributes, ...children) {
      const node = svg(tag, attributes, ...children);
      this.svg.append(node);
      return node;
    }
    line(from, to, attributes) {
      const [[x1, y1], [x2, y2]] = [from, to];
      return this.add("line",
        { x1: this.x(x1), y1: this.y(y1), x2: this.x(x2), y2: this.y(y2), ...attributes });
    }
    text([x, y], text, attributes = {}) {
      return this.add("text", { x: this.x(x), y: this.y(y), ...attributes }, text);
    }
    path(points) {
      return points.map(([x, y], i) =>
        `${i ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
    }
  }

  /** A point of a plane that moves by pointer and by arrow keys. */
  function handle(plane, name, color, point, onMove) {
    const node = plane.add("circle",
      { r: 11, class: "handle", fill: color, tabindex: 0, role: "slider", "aria-valuemin": plane.x0,
        "aria-valuemax": plane.x1 });
    const move = (x, y) => {
      const edge = 0.04 * (plane.x1 - plane.x0);
      const round = (value) => Math.round(100 * value) / 100 + 0; // steps add up to what they say
      point[0] = round(limit(x, plane.x0 + edge, plane.x1 - edge));
      point[1] = round(limit(y, plane.y0 + edge, plane.y1 - edge));
      onMove();
    };
    const under = (event) => {
      const box = plane.svg.getBoundingClientRect();
      return [plane.x0 + ((event.clientX - box.left) / box.width) * (plane.x1 - plane.x0),
        plane.y1 - ((event.clientY - box.top) / box.height) * (plane.y1 - plane.y0)];
    };
    let grip = [0, 0]; // where the handle was taken hold of
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const [x, y] = under(event);
      grip = [point[0] - x, point[1] - y];
      node.setPointerCapture(event.pointerId);
      node.focus();
      event.preventDefault();
    });
    node.addEventListener("pointermove", (event) => {
      if (!node.hasPointerCapture(event.pointerId)) return;
      const [x, y] = under(event);
      move(x + grip[0], y + grip[1]);
    });
    node.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.5 : 0.1;
      const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step],
        ArrowDown: [0, -step] }[event.key];
      if (!steps) return;
      event.preventDefault();
      move(point[0] + steps[0], point[1] + steps[1]);
    });
    return (opacity = 1) => {
      set(node, { cx: plane.x(point[0]), cy: plane.y(point[1]), "fill-opacity": opacity,
        "aria-label": `${name}; arrow keys move it`, "aria-valuenow": point[0].toFixed(2),
        "aria-valuetext": `${number(point[0])}, ${number(point[1])}` });
    };
  }

  // --- A cloud of neurons in the plane --------------------------------------------------------------

  function cloud(root) {
    const mu = [1.2, 0.9], x = [1.0, -1.2];
    const plane = new Plane([-4, 4], [-4, 4], 360, 360,
      "The plane of neurons: a cloud, the input as an arrow, and the half in which neurons fire");
    const active = plane.add("path", { class: "active" });
    plane.line([-4, 0], [4, 0], { class: "axis" });
    plane.line([0, -4], [0, 4], { class: "axis" });
    for (const tick of [-2, 2]) {
      plane.text([tick, -0.35], number(tick, 0), { class: "tick" });
      plane.text([-0.12, tick - 0.1], number(tick, 0), { class: "tick end" });
    }
    plane.text([3.9, -0.35], "β₁", { class: "tick end" });
    plane.text([-0.12, 3.7], "β₂", { class: "tick end" });
    const edge = plane.add("line", { class: "edge" });
    const turn = plane.add("line", { class: "turn" });
    const rings = [2, 1].map((n) => [n, plane.add("ellipse", { class: "cloud" })]);
    const draws = normals(3, 160);
    const dots = Array.from({ length: 80 }, () => plane.add("circle", { r: 2.4 }));
    const arrow = plane.add("line", { class: "arrow" });
    const moveX = handle(plane, "input x", "#2f6db5", x, () => draw());
    const moveMu = handle(plane, "mean of the cloud", "#c8322b", mu, () => draw());
    const names = [["μ", mu, -11], ["x", x, 24]].map(([name, point, below]) =>
      [plane.text([0, 0], name, { class: "name" }), point, below]);

    const curve = new Plane([-6.6, 6.6], [-1.3, 6.9], 360, 290,
      "Mean activation F against the mean pre-activation m");
    curve.line([-6, 0], [6, 0], { class: "axis" });
    curve.line([0, 0], [0, 6.5], { class: "axis" });
    for (const tick of [-6, -3, 3, 6]) curve.text([tick, -0.6], number(tick, 0), { class: "tick" });
    for (const tick of [2, 4, 6]) {
      curve.text([-0.2, tick - 0.15], number(tick, 0), { class: "tick end" });
    }
    curve.text([0, -1.15], "mean pre-activation m = ⟨μ, x⟩", { class: "tick" });
    curve.text([0.25, 6.4], "F", { class: "tick start" });
    curve.line([-6, 5.75], [-5, 5.75], { class: "smooth" });
    curve.text([-4.8, 5.6], "the cloud", { class: "tick start" });
    curve.line([-6, 5.05], [-5, 5.05], { class: "relu" });
    curve.text([-4.8, 4.9], "one neuron", { class: "tick start" });
    curve.add("path", { class: "relu", d: curve.path([[-6, 0], [0, 0], [6, 6]]) });
    const smooth = curve.add("path", { class: "smooth" });
    const here = curve.add("circle", { r: 6, class: "here" });
    const beyond = curve.text([0, 0], "", { class: "tick" });

    const bounds = { min: -2, max: 2, step: 0.1 };
    const spread = [0, 1].map((i) => slider(["σ₁", "σ₂"][i],
      { min: 0, max: 1.5, step: 0.05, value: [0.9, 0.5][i] }, () => draw()));
    const readout = ["u₁", "u₂", "v"].map((name, i) =>
      slider(name, { ...bounds, value: [1, 0.5, 0][i] }, () => draw()));
    const [moments, outputs] = [0, 1].map(() =>
      element("p", { class: "values", "aria-live": "polite" }));

    /** The line on which <a, beta> + b is zero, if there is one. */
    function zeros(line, a, b) {
      const norm = Math.hypot(...a);
      if (!norm) return set(line, { visibility: "hidden" });
      const foot = a.map((own) => (-b * own) / norm ** 2), along = [-a[1] / norm, a[0] / norm];
      const ends = [-12, 12].map((s) => [foot[0] + s * along[0], foot[1] + s * along[1]]);
      set(line, { visibility: "visible", x1: plane.x(ends[0][0]), y1: plane.y(ends[0][1]),
        x2: plane.x(ends[1][0]), y2: plane.y(ends[1][1]) });
      return ends;
    }

    function draw() {
      const sigma = spread.map((own) => own.value);
      const [u1, u2, v] = readout.map((own) => own.value);
      const m = dot(mu, x), t = Math.hypot(sigma[0] * x[0], sigma[1] * x[1]);
      const [F, G] = reluMoments(m, t);
      const [h] = gmLayer(x, [mu], [sigma], [[[u1, u2]]], [[v]]);
      const ends = zeros(edge, x, 0), norm = Math.hypot(...x);
      zeros(turn, [u1, u2], v);
      set(active, { d: ends ? plane.path([...ends, ...ends.map((p) =>
        [p[0] + (12 * x[0]) / norm, p[1] + (12 * x[1]) / norm]).reverse()]) + "Z" : "" });
      for (const [n, ring] of rings) {
        set(ring, { cx: plane.x(mu[0]), cy: plane.y(mu[1]), rx: 45 * n * sigma[0],
          ry: 45 * n * sigma[1] });
      }
      dots.forEach((point, i) => {
        const beta = [0, 1].map((j) => mu[j] + sigma[j] * draws[2 * i + j]);
        const writes = u1 * beta[0] + u2 * beta[1] + v < 0 ? "down" : "up";
        set(point, { cx: plane.x(beta[0]), cy: plane.y(beta[1]),
          class: `neuron ${writes} ${dot(beta, x) > 0 ? "on" : ""}` });
      });
      set(arrow, { x1: plane.x(0), y1: plane.y(0), x2: plane.x(x[0]), y2: plane.y(x[1]) });
      for (const [label, [px, py], below] of names) {
        set(label, { x: limit(plane.x(px) + 15, 0, 345), y: limit(plane.y(py) + below, 18, 355) });
      }
      moveMu(m > 0 ? 1 : 0.15); // a neuron at the mean would not fire
      moveX();
      const points = Array.from({ length: 121 }, (_, i) => -6 + 0.1 * i);
      set(smooth, { d: curve.path(points.map((at) => [at, reluMoments(at, t)[0]])) });
      const outside = Math.abs(m) > 6 || F > 6.5;
      const [hereX, hereY] = [limit(m, -6, 6), limit(F, 0, 6.5)];
      set(here, { cx: curve.x(hereX), cy: curve.y(hereY) });
      beyond.textContent = outside ? `${m < 0 ? "←" : "→"} m = ${number(m, 1)}` : "";
      set(beyond, { x: limit(curve.x(hereX), 40, 310), y: curve.y(hereY) + (m < 0 ? -12 : 24) });
      report(moments, `m = ${number(m)}`, `t = ${number(t)}`, `G = ${number(100 * G, 0)} %`);
      report(outputs, `F = ${number(F, 3)}`, `output h = ${number(h, 3)}`);
    }

    root.replaceChildren(element("div", { class: "panels" },
      element("div", { class: "side" }, plane.svg,
        group("spread of the cloud", ...spread.map((own) => own.row)), moments),
      element("div", { class: "side" }, curve.svg,
        group("readout of a neuron: u₁β₁ + u₂β₂ + v", ...readout.map((own) => own.row)), outputs)));
    draw();
  }

  // --- The scale of the logits ----------------------------------------------------------------------

  function logits(root) {
    const target = 0.5, Ks = [1, 2, 5, 10, 20, 50, 100], sides = [7, 14, 28];
    const starts = new Map(); // those that were drawn
    let seed = 0;
    const pick = (list) => ({ min: 0, max: list.length - 1, step: 1 });
    const K = slider("K", { ...pick(Ks), value: 3, show: (i) => `${Ks[i]}` }, () => draw());
    const d = slider("d", { ...pick(sides), value: 2, show: (i) => `${sides[i] ** 2}` },
      () => draw());
    // A scheme says what gamma is, whatever d is; moving gamma leaves it.
    const schemes = [
      { text: "BL: γ = ½", names: ["BL", "BL, calibrated"], colors: ["bl", "bl-calibrated"],
        gamma: () => 0.5 },
      { text: "fan-in: γ = √(2/d)", names: ["fan-in", "KUMAR: fan-in, calibrated"],
        colors: ["fan-in", "kumar"], gamma: () => Math.sqrt(2) / sides[d.value] },
    ];
    const free = { names: ["as drawn", "calibrated"], colors: ["plain", "plain"],
      gamma: () => 10 ** slide.value };
    let scheme = schemes[0];
    const slide = slider("γ", { min: -2, max: 0.3, step: 0.01, value: Math.log10(0.5),
      show: () => short(scheme.gamma()) }, () => { scheme = free; draw(); });
    for (const own of schemes) own.button = button(own.text, () => { scheme = own; draw(); });
    const again = button("draw again", () => { seed += 1; draw(); });

    const ruler = new Plane([-5.6, 4.9], [0, 1], 460, 84,
      "Standard deviation of the logits on a logarithmic axis");
    ruler.svg.classList.add("ruler");
    ruler.line([-5, 0.5], [4, 0.5], { class: "axis" });
    for (let e = -5; e <= 4; e++) {
      ruler.line([e, 0.45], [e, 0.55], { class: "axis" });
      if (e % 2 === 0) ruler.text([e, 0.04], short(10 ** e), { class: "tick" });
    }
    ruler.line([Math.log10(target), 0.35], [Math.log10(target), 0.78], { class: "target" });
    ruler.text([Math.log10(target), 0.84], "target", { class: "tick" });
    const predicted = ruler.add("path", { class: "predicted", d: "M0 8L6 19L-6 19Z" });
    const measured = ruler.add("circle", { r: 6 });
    const key = element("p", { class: "values wide key" });
    key.innerHTML = "<span>● these draws</span> <span>▲ predicted, all draws</span>";

    const histograms = [0, 1].map(() => {
      const plane = new Plane([-2.2, 2.2], [-0.16, 1.25], 360, 220, "Histogram of logits");
      plane.line([-2, 0], [2, 0], { class: "axis" });
      for (const tick of [-2, -1, 0, 1, 2]) {
        plane.text([tick, -0.12], number(tick, 0), { class: "tick" });
      }
      const title = plane.text([0, 1.15], "", { class: "title" });
      const bars = plane.add("path", {});
      const beyond = [-2, 2].map((x) =>
        plane.text([x, 1.02], "", { class: x < 0 ? "tick start" : "tick end" }));
      return { plane, title, bars, beyond };
    });
    const values = element("p", { class: "values wide", "aria-live": "polite" });

    function histogram({ plane, bars, beyond }, data) {
      const bins = 41, width = 4 / bins, counts = new Array(bins).fill(0);
      let below = 0, above = 0;
      for (const value of data) {
        if (value < -2) below++;
        else if (value >= 2) above++;
        else counts[Math.floor((value + 2) / width)]++;
      }
      const most = Math.max(...counts, 1);
      set(bars, { d: counts.map((own, i) => {
        const left = -2 + i * width, top = own / Math.max(most, 20);
        return plane.path([[left, 0], [left, top], [left + width, top], [left + width, 0]]) + "Z";
      }).join("") });
      [below, above].forEach((own, i) => {
        const share = own < 0.01 * data.length ? "<1 %" : `${number((100 * own) / data.length, 0)} %`;
        beyond[i].textContent = own ? (i ? `${share} beyond →` : `← ${share} beyond`) : "";
      });
    }

    function draw() {
      const size = sides[d.value] ** 2, components = Ks[K.value], gamma = scheme.gamma();
      slide.input.value = Math.log10(gamma);
      slide.update();
      for (const own of schemes) own.button.setAttribute("aria-pressed", own === scheme);
      const name = `${size} ${components} ${seed}`;
      if (!starts.has(name)) starts.set(name, new Start(size, components, seed));
      const out = starts.get(name).logits(gamma), std = deviation(out);
      const formula = outputStd(gamma, size, components, size), scale = target / std;
      histograms.forEach((own, i) => {
        own.title.textContent = scheme.names[i];
        own.bars.setAttribute("class", scheme.colors[i]);
        own.plane.svg.setAttribute("aria-label", `Histogram of logits, ${scheme.names[i]}`);
        histogram(own, i ? out.map((value) => scale * value) : out);
      });
      const place = (value) => ruler.x(limit(Math.log10(value), -5, 4));
      set(measured, { cx: place(std), cy: ruler.y(0.5), class: scheme.colors[0] });
      set(predicted, { transform: `translate(${place(formula)} ${ruler.y(0.5)})` });
      report(values, `std of the logits: ${short(std)}`, `predicted: ${short(formula)}`,
        `calibration: × ${short(scale)}`);
    }

    root.replaceChildren(
      element("div", { class: "controls" }, K.row, d.row, slide.row,
        element("div", { class: "buttons" }, ...schemes.map((own) => own.button), again)),
      ruler.svg, key, values,
      element("div", { class: "panels" }, ...histograms.map((own) => own.plane.svg)));
    draw();
  }

  // --- Components over epochs -------------------------------------------------------------------------

  function player(root) {
    const { panels, colors } = JSON.parse(root.querySelector("script").textContent);
    const names = Object.keys(panels);
    const epochs = panels[names[0]].length;
    let timer = null;
    const epoch = slider("epoch", { min: 0, max: epochs - 1, step: 1, value: epochs - 1,
      show: (e) => `${e}` }, () => { stop(); draw(); });
    const play = button("play", () => (timer ? stop() : start()));
    const own = element("input", { type: "checkbox", id: `explorable-${++count}` });
    own.addEventListener("change", () => draw());
    const reach = (name) => Math.max(...panels[name].flat().map(([x, y, a]) =>
      Math.max(Math.abs(x), Math.abs(y)) + 2 * a));
    const widest = Math.max(...names.map(reach));
    const views = names.map((name) => {
      const plane = new Plane([-1, 1], [-1, 1], 360, 360, `Components of ${name}`);
      plane.line([-1, 0], [1, 0], { class: "axis" });
      plane.line([0, -1], [0, 1], { class: "axis" });
      plane.text([-0.97, 0.88], name, { class: "title start" });
      const scale = plane.text([0.97, -0.93], "", { class: "tick end" });
      plane.text([0.97, 0.04], "PC 1", { class: "tick end" });
      plane.text([0.04, 0.88], "PC 2", { class: "tick start" });
      const shapes = panels[name][0].map((_, k) => {
        const color = colors[k % colors.length];
        return { from: plane.add("circle", { r: 3, fill: "none", stroke: color }),
          path: plane.add("path", { fill: "none", stroke: color, "stroke-width": 1.5 }),
          ellipse: plane.add("ellipse", { fill: color, "fill-opacity": 0.3, stroke: color }) };
      });
      return { name, plane, shapes, scale };
    });

    function draw() {
      const now = epoch.value;
      for (const { name, plane, shapes, scale } of views) {
        const unit = 1.04 * (own.checked ? reach(name) : widest);
        scale.textContent = `edge at ${number(unit, 1)}`;
        shapes.forEach(({ from, path, ellipse }, k) => {
          const track = panels[name].slice(0, now + 1).map((at) => at[k]);
          const [x, y, a, b, angle] = track[now];
          set(path, { d: plane.path(track.map(([px, py]) => [px / unit, py / unit])) });
          const [[x0, y0]] = track;
          set(from, { cx: plane.x(x0 / unit), cy: plane.y(y0 / unit) });
          const [cx, cy] = [plane.x(x / unit), plane.y(y / unit)];
          set(ellipse, { cx, cy, rx: (2 * a * plane.width) / (2 * unit),
            ry: (2 * b * plane.width) / (2 * unit), transform: `rotate(${-angle} ${cx} ${cy})` });
        });
      }
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "play";
    }
    function start() {
      if (epoch.value === epochs - 1) epoch.input.value = 0;
      epoch.update();
      draw();
      play.textContent = "pause";
      timer = setInterval(() => {
        if (epoch.value >= epochs - 1) return stop();
        epoch.input.value = epoch.value + 1;
        epoch.update();
        draw();
      }, 350);
    }

    root.replaceChildren(
      element("div", { class: "controls" }, play, epoch.row,
        element("div", { class: "check" }, own,
          element("label", { for: own.id }, "each at its own scale"))),
      element("div", { class: "panels pair" }, ...views.map((view) => view.plane.svg)));
    draw();
  }

  // --- Into the page ------------------------------------------------------------------------------------

  const kinds = { cloud, logits, player };

  function fill() {
    for (const root of document.querySelectorAll("[data-explorable]")) {
      kinds[root.dataset.explorable](root);
      root.classList.add("ready");
    }
  }

  window.explorables = { reluMoments, gmLayer, outputStd, Start, deviation };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", fill);
  else fill();
})();
