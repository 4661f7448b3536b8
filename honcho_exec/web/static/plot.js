import { el, formatDuration, formatTime, svg } from "./dom.js";

// The sync latency of deliveries over time, on a logarithmic scale, as wide as `width` pixels.
export function plot(deliveries, width) {
  if (deliveries.length === 0) return el("p", {}, "No deliveries yet.");
  const [height, left, bottom, top] = [240, 62, 28, 12];
  const times = deliveries.map((delivery) => delivery.at);
  const waits = deliveries.map((delivery) => Math.max(delivery.waited, 0.001));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const [low, high] = [Math.floor(Math.log10(Math.min(...waits))), Math.ceil(Math.log10(Math.max(...waits)) + 1e-9)];
  const x = (at) => left + (last === first ? 0.5 : (at - first) / (last - first)) * (width - left - 14);
  const y = (wait) => top + (1 - (Math.log10(wait) - low) / Math.max(1, high - low)) * (height - top - bottom);
  const sorted = [...waits].sort((a, b) => a - b);
  const middle = sorted[Math.floor((sorted.length - 1) / 2)];
  const worst = sorted[sorted.length - 1];
  const caption = `Sync latency of the last ${deliveries.length} deliveries: median ${formatDuration(middle)}, at most ${formatDuration(worst)}.`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": caption });
  for (let power = low; power <= Math.max(high, low + 1); power += 1) {
    const level = y(10 ** power);
    picture.append(svg("line", { class: "grid", x1: left, x2: width - 14, y1: level, y2: level }),
      svg("text", { x: left - 6, y: level + 4, "text-anchor": "end" }, formatDuration(10 ** power)));
  }
  picture.append(svg("text", { x: left, y: height - 8 }, formatTime(first * 1000, "short")),
    svg("text", { x: width - 14, y: height - 8, "text-anchor": "end" }, formatTime(last * 1000, "short")));
  const points = deliveries.map((delivery, index) => [x(delivery.at), y(waits[index])]);
  picture.append(svg("polyline", { class: "line", points: points.map((point) => point.join(",")).join(" ") }));
  deliveries.forEach((delivery, index) => {
    const point = svg("circle", { class: "point", cx: points[index][0], cy: points[index][1], r: 2.5 });
    point.append(svg("title", {}, `${formatTime(delivery.at * 1000)}: ${formatDuration(delivery.waited)}, ${delivery.rows} rows`));
    picture.append(point);
  });
  return el("figure", {}, picture, el("figcaption", { class: "facts" }, caption));
}
