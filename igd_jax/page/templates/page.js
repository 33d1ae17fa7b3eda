const read = (element) => JSON.parse(element.textContent);
const make = (name, attributes = {}, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
};

// Charts, those that can be seen now; the others once their run is chosen.
const specs = read(document.getElementById("specs"));
const options = { actions: false, renderer: "svg", mode: "vega-lite", tooltip: { disableDefaultStyle: false } };
async function draw() {
  for (const place of document.querySelectorAll(".chart:not([data-drawn])")) {
    if (!place.offsetParent) continue;
    place.dataset.drawn = "";
    await vegaEmbed(place, specs[place.dataset.spec], options);
  }
}

// One run at a time.
const views = [...document.querySelectorAll(".run")];
function show(number) {
  for (const view of views) view.hidden = view.dataset.number !== number;
  return draw();
}
for (const input of document.querySelectorAll("#switch input")) {
  input.addEventListener("change", () => show(input.value));
}

// What the heat map shows.
for (const heat of document.querySelectorAll(".heat")) {
  heat.addEventListener("change", (event) => { heat.dataset.channel = event.target.value; });
}

// Beams: columns by depth, a line for each node that is last or closed.
const LINE = 46, HIGH = 38, GAP = 34;
const shown = (value) => value === null ? "" : value.toFixed(2).replace("-", "−");
const pen = document.createElement("canvas").getContext("2d");
const wide = (text, font) => { pen.font = `${font}px system-ui, sans-serif`; return pen.measureText(text).width; };

function label(node) {
  const place = (rank) => rank === null ? "not listed" : `no. ${rank}`;
  const isTitle = node.rank !== null || node.plain_rank !== null;
  const text = node.text.trim() || "start";
  const name = isTitle ? `${place(node.rank)}  ${text}` : text;
  const plain = isTitle ? `${shown(node.plain)} without (${place(node.plain_rank)})` : `${shown(node.plain)} without`;
  const score = node.plain === null ? `+ ${shown(node.score)}, only with alpha`
    : node.score === null ? `− dropped by alpha, ${plain}` : `${shown(node.score)}, ${plain} alpha`;
  return { name: name.length > 44 ? `${name.slice(0, 43)}…` : name, score, text };
}

function plant(beam) {
  const trees = read(beam.querySelector("script")), svg = beam.querySelector("svg"), choice = beam.querySelector("select");
  const opened = new Map(trees.map((tree) => [tree, new Set()]));
  const open = (tree, node, depth) => {
    if (depth > 0) opened.get(tree).add(node);
    node.children.forEach((child) => open(tree, child, depth - 1));
  };
  trees.forEach((tree) => open(tree, tree, 3));

  function grow(focused) {
    const tree = trees[choice.value], isOpen = opened.get(tree), widths = [];
    const nodes = [];
    let line = 0;
    const place = (node, depth) => {
      const own = label(node), at = { node, depth, ...own, children: [] };
      widths[depth] = Math.max(widths[depth] ?? 0, wide(own.name, 14) + 24, wide(own.score, 11.5) + 24);
      nodes.push(at);
      if (isOpen.has(node) && node.children.length) {
        at.children = node.children.map((child) => place(child, depth + 1));
        at.y = at.children[0].y;
      } else {
        at.y = line++ * LINE;
      }
      return at;
    };
    place(tree, 0);
    const left = widths.map((_, depth) => widths.slice(0, depth).reduce((sum, width) => sum + width + GAP, 2));
    const right = left.at(-1) + widths.at(-1) + 4;
    svg.replaceChildren();
    svg.setAttribute("width", right);
    svg.setAttribute("height", line * LINE);
    for (const at of nodes) {
      for (const child of at.children) {
        const [x, y, toX, toY] = [left[at.depth] + widths[at.depth], at.y + HIGH / 2, left[child.depth], child.y + HIGH / 2];
        svg.append(make("path", { d: `M${x} ${y}C${x + GAP / 2} ${y} ${toX - GAP / 2} ${toY} ${toX} ${toY}` }));
      }
    }
    for (const at of nodes) svg.append(box(at, left[at.depth], widths[at.depth]));
    if (focused) svg.querySelector(`[data-place="${nodes.findIndex((at) => at.node === focused)}"]`)?.focus();
    nodes.forEach((at, number) => { at.number = number; });

    function box(at, x, width) {
      const { node } = at, hasMore = node.children.length > 0;
      const kinds = ["node", hasMore && !isOpen.has(node) && "closed", node.rank !== null && "title", node.plain === null && "added", node.score === null && "dropped"];
      const group = make("g", { class: kinds.filter(Boolean).join(" "), transform: `translate(${x} ${at.y})`, "data-place": nodes.indexOf(at) });
      group.append(
        make("rect", { width, height: HIGH, rx: 5 }),
        make("text", { x: 12, y: 16 }, at.name),
        make("text", { x: 12, y: 31, class: "score" }, at.score),
      );
      if (!hasMore) return group;
      group.setAttribute("role", "button");
      group.setAttribute("tabindex", "0");
      group.setAttribute("aria-expanded", isOpen.has(node));
      group.setAttribute("aria-label", `${at.text}, ${at.score}`);
      const toggle = () => { if (!isOpen.delete(node)) isOpen.add(node); grow(node); };
      group.addEventListener("click", toggle);
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
      });
      return group;
    }
  }

  choice.addEventListener("change", () => grow());
  for (const button of beam.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const tree = trees[choice.value];
      opened.get(tree).clear();
      if (button.dataset.open === "all") open(tree, tree, Infinity);
      grow();
    });
  }
  grow();
}
document.querySelectorAll(".beam").forEach(plant);

// Search.
const MOST = 30;
for (const search of document.querySelectorAll(".search")) {
  const rows = read(search.querySelector("script")), body = search.querySelector("tbody"), status = search.querySelector("[role=status]");
  const texts = rows.map(([title, item]) => `${title}\n${item}`.toLowerCase());
  const find = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((_, number) => words.every((word) => texts[number].includes(word)));
    status.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}${found.length > MOST ? `, the first ${MOST} are shown` : ""}`;
    body.replaceChildren(...found.slice(0, MOST).map((row) => {
      const line = document.createElement("tr");
      row.forEach((value, column) => {
        const cell = document.createElement(column ? "td" : "th");
        if (column === 0) cell.scope = "row";
        if (column > 1) cell.className = "n";
        cell.textContent = column > 1 ? value.toLocaleString("en") : value;
        line.append(cell);
      });
      return line;
    }));
  };
  const input = search.querySelector("input");
  input.addEventListener("input", () => find(input.value));
  find("");
}

// On paper nothing can be opened.
addEventListener("beforeprint", () => { for (const user of document.querySelectorAll(".user details")) user.open = true; });

await show("0");
document.documentElement.dataset.ready = "";
