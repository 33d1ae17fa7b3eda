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

// Beams: a line for each node whose parents are all open, further to the right the deeper it is.
const LINE = 46, HIGH = 38, STEP = 22;
const shown = (value) => value === null ? "" : value.toFixed(2).replace("-", "−");
const pen = document.createElement("canvas").getContext("2d");
const wide = (text, font) => { pen.font = `${font}px system-ui, sans-serif`; return pen.measureText(text).width; };

function describe(node) {
  const place = (rank) => rank === null ? "not listed" : `no. ${rank}`;
  const isTitle = node.rank !== null || node.plain_rank !== null;
  const [score, plain] = [shown(node.score), shown(node.plain)];
  const without = isTitle ? `${plain} (${place(node.plain_rank)}) without` : `${plain} without`;
  if (node.plain === null) return `+ ${score}, only with alpha`;
  if (node.score === null) return `− dropped by alpha, ${without} it`;
  return score === plain && node.rank === node.plain_rank ? score : `${score}, ${without} alpha`;
}

function plant(beam) {
  const trees = read(beam.querySelector("script")), svg = beam.querySelector("svg"), choice = beam.querySelector("select");
  const opened = new Map(trees.map((tree) => [tree, new Set()]));
  const open = (tree, node, depth) => {
    if (depth > 0) opened.get(tree).add(node);
    node.children.forEach((child) => open(tree, child, depth - 1));
  };
  trees.forEach((tree) => open(tree, tree, 2));

  function grow(focused) {
    const isOpen = opened.get(trees[choice.value]), lines = [];
    const place = (node, depth, parent) => {
      const line = lines.push({ node, depth, parent }) - 1;
      if (isOpen.has(node)) node.children.forEach((child) => place(child, depth + 1, line));
    };
    place(trees[choice.value], 0, null);
    svg.replaceChildren();
    for (const [number, { depth, parent }] of lines.entries()) {
      const x = depth * STEP - STEP / 2 + 1;
      if (parent !== null) svg.append(make("path", { d: `M${x} ${parent * LINE + HIGH}V${number * LINE + HIGH / 2}h${STEP / 2}` }));
    }
    const widths = lines.map(({ node, depth }, number) => box(node, depth * STEP + 1, number * LINE + 1));
    svg.setAttribute("width", Math.max(...widths) + 2);
    svg.setAttribute("height", lines.length * LINE);
    if (focused) svg.querySelectorAll(".node")[lines.findIndex(({ node }) => node === focused)].focus();

    function box(node, x, y) {
      const hasMore = node.children.length > 0, sign = hasMore ? (isOpen.has(node) ? "▾ " : "▸ ") : "";
      const text = node.text.trim() || "start", name = `${sign}${node.rank === null ? "" : `${node.rank}. `}${text}`;
      const score = node.text ? describe(node) : "nothing is written yet";
      const width = Math.max(wide(name, 14), wide(score, 11.5)) + 24;
      const kinds = { closed: hasMore && !isOpen.has(node), title: node.rank !== null, added: node.plain === null, dropped: node.score === null };
      const names = Object.keys(kinds).filter((kind) => kinds[kind]);
      const group = make("g", { class: ["node", ...names].join(" "), transform: `translate(${x} ${y})` });
      group.append(
        make("rect", { width, height: HIGH, rx: 5 }),
        make("text", { x: 12, y: 16 }, name),
        make("text", { x: 12, y: 31, class: "score" }, score),
      );
      svg.append(group);
      if (!hasMore) return x + width;
      const labels = { role: "button", tabindex: "0", "aria-expanded": isOpen.has(node), "aria-label": `${text}, ${score}` };
      for (const [key, value] of Object.entries(labels)) group.setAttribute(key, value);
      const toggle = () => { if (!isOpen.delete(node)) isOpen.add(node); grow(node); };
      group.addEventListener("click", toggle);
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
      });
      return x + width;
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
