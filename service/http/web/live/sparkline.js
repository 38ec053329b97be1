/** A small picture of counts over time. Its numbers are also in the text beside it, so screen readers skip it. */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 32;
const WIDTH = 4;
const BAR = 3;

/** Return bars for some counts, oldest first. */
export function sparkline(counts) {
  const most = Math.max(1, ...counts);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length * WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "sparkline");
  svg.setAttribute("aria-hidden", "true");
  for (const [index, count] of counts.entries()) {
    const height = count ? Math.max(2, (count / most) * HEIGHT) : 1;
    const bar = document.createElementNS(SVG, "rect");
    bar.setAttribute("x", String(index * WIDTH));
    bar.setAttribute("y", String(HEIGHT - height));
    bar.setAttribute("width", String(BAR));
    bar.setAttribute("height", String(height));
    svg.append(bar);
  }
  return svg;
}
