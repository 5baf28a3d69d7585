// The ratios as a picture: a bar for each peer, its spread over the rounds, a mark where the target is.
import * as echarts from 'echarts';

/** @typedef {import('./results.js').CaseResult} CaseResult */

const WIDTH = 1000;
const BAR = 9;
const GAP = 8;
const HEAD = 96;
const FOOT = 50;
const NAMES = 230;
const COLOURS = ['#3b6ea8', '#d98c2b', '#7a9e48', '#8a5a9c'];

/**
 * @param {readonly CaseResult[]} results
 * @param {string} subtitle
 * @returns {string} an SVG
 */
export function plot(results, subtitle) {
  const groups = [...new Set(results.flatMap(({ speed }) => speed.map(({ peer }) => groupOf(peer))))];
  const height = HEAD + FOOT + results.length * (groups.length * BAR + GAP);
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    textStyle: { fontFamily: 'sans-serif' },
    color: COLOURS,
    title: { text: 'tsnbd / peer, requests a second: more is better', subtext: subtitle, left: 'center' },
    legend: { data: groups, top: 58, itemGap: 24 },
    grid: { left: NAMES, right: 30, top: HEAD, bottom: FOOT },
    xAxis: {
      type: 'log',
      logBase: 2,
      name: 'ratio; whiskers: lowest to highest round, diamonds: targets',
      nameLocation: 'middle',
      nameGap: 30,
      min: 0.25,
      splitLine: { lineStyle: { color: '#dddddd' } },
    },
    yAxis: { type: 'category', inverse: true, data: results.map(({ name }) => name), axisLabel: { interval: 0 } },
    series: groups.flatMap((group, index) => seriesOf(results, group, index, groups.length)),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

/**
 * @param {readonly CaseResult[]} results
 * @param {string} group
 * @param {number} index of the group
 * @param {number} count of groups
 * @returns {import('echarts').SeriesOption[]}
 */
function seriesOf(results, group, index, count) {
  // Of modes that are compared each, the better one stands first.
  const comparisons = results.map(({ speed }) => speed.find(({ peer }) => groupOf(peer) === group));
  /** Pixels from the middle of a case's row to this group's bar. */
  const shift = (index - (count - 1) / 2) * BAR;
  return [
    {
      name: group,
      type: 'bar',
      barWidth: BAR - 1,
      barGap: '10%',
      data: comparisons.map((one) => one?.ratio.median ?? '-'),
      ...(index === 0
        ? {
            markLine: {
              symbol: 'none',
              label: { show: false },
              data: [{ xAxis: 1 }],
              lineStyle: { color: '#000000', type: 'solid' },
            },
          }
        : {}),
    },
    {
      name: group,
      type: 'custom',
      z: 5,
      data: comparisons.flatMap((one, row) => (one ? [[one.ratio.lowest, one.ratio.highest, row]] : [])),
      encode: { x: [0, 1], y: 2 },
      renderItem: (_, api) => {
        const [left = 0, y = 0] = api.coord([api.value(0), api.value(2)]);
        const [right = 0] = api.coord([api.value(1), api.value(2)]);
        const shape = { x1: left, x2: right, y1: y + shift, y2: y + shift };
        return { type: 'line', shape, style: { stroke: '#222222', lineWidth: 1 } };
      },
    },
    {
      name: group,
      type: 'scatter',
      z: 6,
      symbol: 'diamond',
      symbolSize: 8,
      symbolOffset: [0, shift],
      itemStyle: { color: '#ffffff', borderColor: '#b00020', borderWidth: 1.5 },
      data: comparisons.flatMap((one, row) => (one?.target === undefined ? [] : [[one.target, row]])),
    },
  ];
}

/** @param {string} peer */
function groupOf(peer) {
  return peer.split(' ')[0] ?? peer;
}
