"use strict";
for (const section of document.querySelectorAll("section.heads")) {
  const source = section.querySelector("script");
  if (!source) continue;
  const data = JSON.parse(source.textContent);
  const [rows, cols] = [data.rows.length, data.cols.length];
  const part = (name) => section.querySelector(name);
  const [layers, heads, stretch] = [part(".layer"), part(".head"), part(".stretch")];
  const [one, said, all] = [part(".one"), part(".said"), part(".all")];
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const digit = Object.fromEntries([...digits].map((c, i) => [c, i]));
  const read = (text) => {
    const out = new Uint16Array(rows * cols);
    for (let i = 0; i < out.length; i++) out[i] = digit[text[2 * i]] * 64 + digit[text[2 * i + 1]];
    return out;
  };
  const maps = data.layers.map((layer) => layer.heads.map(read));
  // The last choice of each layer is the mean of its heads.
  const mean = (layer) => {
    const out = new Float32Array(rows * cols);
    for (const map of layer) for (let i = 0; i < out.length; i++) out[i] += map[i] / layer.length;
    return out;
  };
  const ticks = [...section.querySelectorAll(".ticks span")];
  const plain = ticks.map((tick) => tick.textContent);
  const at = { layer: 0, head: 0, row: -1, col: -1 };
  const values = () => maps[at.layer][at.head] || mean(maps[at.layer]);
  const name = (l, h) => `${data.layers[l].name}, ${h < maps[l].length ? `head ${h + 1}` : "mean of all heads"}`;
  const number = (v) => (v / 1000).toFixed(3);

  // Colours of the page's scale, as the reader's light or dark mode has them.
  let colours, ink, quiet, mark;
  const palette = () => {
    const probe = document.createElement("i");
    section.append(probe);
    const style = getComputedStyle(probe);
    colours = Array.from({ length: 51 }, (_, i) => {
      probe.className = `c${i}`;
      return style.backgroundColor;
    });
    probe.className = "";
    const read = (value) => { probe.style.color = value; return style.color; };
    [ink, quiet, mark] = [read("var(--ink)"), read("var(--quiet)"), read("var(--gold)")];
    probe.remove();
  };
  const colour = (v, most) => colours[Math.max(0, Math.min(50, Math.round((v / most) * 50)))];
  const most = (map) => (stretch.checked ? map.reduce((a, b) => Math.max(a, b), 1) : 1000);

  const font = (size) => `${size}px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif`;
  const cut = (pen, text, room) => {
    const letters = [...text];
    if (pen.measureText(text).width <= room) return text;
    while (letters.length && pen.measureText(letters.join("") + "…").width > room) letters.pop();
    return letters.join("") + "…";
  };

  // The sizes of the large map.
  let plan;
  const measure = () => {
    const pen = one.getContext("2d");
    pen.font = font(12);
    const longest = (names) => Math.min(130, Math.max(...names.map((n) => pen.measureText(n).width)));
    const left = Math.ceil(longest(data.rows)) + 34;
    const top = Math.ceil(longest(data.cols)) + 30;
    const width = Math.max(280, all.parentElement.clientWidth - left - 8);
    const cell = Math.max(3, Math.min(34, Math.floor(width / cols), Math.floor(640 / rows)));
    plan = { left, top, cell, width: Math.max(left + cols * cell + 6, 220), height: Math.max(top + rows * cell + 6, top + 90) };
    const scale = window.devicePixelRatio || 1;
    [one.width, one.height] = [plan.width * scale, plan.height * scale];
    one.style.width = `${plan.width}px`;
    one.style.height = `${plan.height}px`;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
  };

  const labels = (pen) => {
    const { left, top, cell } = plan;
    const step = Math.max(1, Math.ceil(13 / cell));
    pen.font = font(12);
    pen.textBaseline = "middle";
    const chosen = (i, c) => i === c && at.row >= 0;
    const shown = (i, c) => chosen(i, c) || (i % step === 0 && !(at.row >= 0 && Math.abs(i - c) < step));
    for (let r = 0; r < rows; r++) {
      if (!shown(r, at.row)) continue;
      pen.fillStyle = chosen(r, at.row) ? mark : ink;
      pen.textAlign = "right";
      pen.fillText(cut(pen, data.rows[r], 130), left - 6, top + (r + 0.5) * cell);
    }
    for (let c = 0; c < cols; c++) {
      if (!shown(c, at.col)) continue;
      pen.save();
      pen.translate(left + (c + 0.5) * cell, top - 6);
      pen.rotate(-Math.PI / 2);
      pen.fillStyle = chosen(c, at.col) ? mark : ink;
      pen.textAlign = "left";
      pen.fillText(cut(pen, data.cols[c], 130), 0, 0);
      pen.restore();
    }
    pen.fillStyle = quiet;
    pen.textAlign = "left";
    pen.fillText(`${data.col_label} →`, left, 9);
    pen.save();
    pen.translate(9, top);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "right";
    pen.fillText(`← ${data.row_label}`, 0, 0);
    pen.restore();
  };

  const draw = () => {
    const pen = one.getContext("2d");
    const { left, top, cell } = plan;
    const map = values();
    const full = most(map);
    ticks.forEach((tick, i) => {
      tick.textContent = stretch.checked ? ((full * i) / 4000).toFixed(2) : plain[i];
    });
    pen.clearRect(0, 0, plan.width, plan.height);
    const gap = cell > 8 ? 1 : 0;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        pen.fillStyle = colour(map[r * cols + c], full);
        pen.fillRect(left + c * cell, top + r * cell, cell - gap, cell - gap);
      }
    }
    labels(pen);
    if (at.row >= 0) {
      pen.strokeStyle = mark;
      pen.lineWidth = 2;
      pen.strokeRect(left + at.col * cell - 1, top + at.row * cell - 1, cell + 2 - gap, cell + 2 - gap);
    }
    one.setAttribute("aria-label", `${name(at.layer, at.head)}: ${data.row_label} down, ${data.col_label} across. Arrow keys read the weights.`);
    const place = at.row < 0 ? "point at a cell, or use the arrow keys, to read its weight" :
      `${data.row_label} ${data.rows[at.row]} (${at.row + 1}), ${data.col_label} ${data.cols[at.col]} (${at.col + 1}): ${number(map[at.row * cols + at.col])}`;
    said.textContent = `${name(at.layer, at.head)}: ${place}`;
  };

  // Small maps, one canvas each.
  const small = [];
  const thumbnails = () => {
    for (const { canvas, layer, head } of small) {
      const pen = canvas.getContext("2d");
      const map = maps[layer][head];
      const full = most(map);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < cols; c++) {
          pen.fillStyle = colour(map[r * cols + c], full);
          pen.fillRect(c, r, 1, 1);
        }
      }
    }
  };
  const overview = () => {
    const table = document.createElement("table");
    const element = (kind, parent, text) => {
      const made = document.createElement(kind);
      if (text !== undefined) made.textContent = text;
      parent.append(made);
      return made;
    };
    const count = Math.max(...maps.map((layer) => layer.length));
    const room = Math.floor((all.parentElement.clientWidth - 90) / count) - 8;
    const side = Math.max(32, Math.min(96, room));
    const across = Math.max(8, Math.min(side, (side * cols) / Math.max(rows, cols)));
    const down = Math.max(8, Math.min(side, (side * rows) / Math.max(rows, cols)));
    const top = element("tr", element("thead", table));
    element("th", top, "");
    for (let h = 0; h < count; h++) element("th", top, h + 1).scope = "col";
    const body = element("tbody", table);
    maps.forEach((heads, layer) => {
      const line = element("tr", body);
      element("th", line, data.layers[layer].name).scope = "row";
      heads.forEach((_, head) => {
        const button = element("button", element("td", line));
        button.type = "button";
        button.title = name(layer, head);
        button.setAttribute("aria-label", name(layer, head));
        const canvas = element("canvas", button);
        [canvas.width, canvas.height] = [cols, rows];
        canvas.style.width = `${across}px`;
        canvas.style.height = `${down}px`;
        button.addEventListener("click", () => {
          choose(layer, head);
          part(".pick").scrollIntoView({ block: "nearest" });
        });
        small.push({ canvas, button, layer, head });
      });
    });
    all.replaceChildren(table);
  };

  const option = (select, text, value) => select.append(new Option(text, value));
  const choose = (layer, head) => {
    at.layer = layer;
    at.head = Math.min(head, maps[layer].length);
    heads.replaceChildren();
    maps[layer].forEach((_, h) => option(heads, `${h + 1}`, h));
    option(heads, "mean", maps[layer].length);
    [layers.value, heads.value] = [layer, at.head];
    for (const s of small) s.button.setAttribute("aria-pressed", s.layer === layer && s.head === at.head);
    draw();
  };
  data.layers.forEach((layer, i) => option(layers, layer.name, i));
  layers.addEventListener("change", () => {
    // The mean stays the mean where the layers have another number of heads.
    const mean = at.head === maps[at.layer].length;
    choose(+layers.value, mean ? Infinity : at.head);
  });
  heads.addEventListener("change", () => choose(at.layer, +heads.value));
  stretch.addEventListener("change", () => { draw(); thumbnails(); });

  const point = (row, col) => {
    if (row === at.row && col === at.col) return;
    [at.row, at.col] = [row, col];
    draw();
  };
  one.addEventListener("pointermove", (e) => {
    const box = one.getBoundingClientRect();
    const [c, r] = [e.clientX - box.left - plan.left, e.clientY - box.top - plan.top].map((v) => Math.floor(v / plan.cell));
    if (r >= 0 && c >= 0 && r < rows && c < cols) point(r, c);
    else point(-1, -1);
  });
  one.addEventListener("pointerleave", () => { if (document.activeElement !== one) point(-1, -1); });
  one.addEventListener("focus", () => { if (at.row < 0) point(0, 0); });
  one.addEventListener("blur", () => point(-1, -1));
  one.addEventListener("keydown", (e) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -cols], End: [0, cols] };
    const step = steps[e.key];
    if (!step || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    const within = (v, n) => Math.max(0, Math.min(n - 1, v));
    point(within(at.row + step[0], rows), within(at.col + step[1], cols));
  });

  const refresh = () => { palette(); draw(); thumbnails(); };
  palette();
  measure();
  overview();
  choose(0, 0);
  thumbnails();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  addEventListener("resize", () => { measure(); draw(); });
}
