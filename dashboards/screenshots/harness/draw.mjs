// node draw.mjs JOBS.json: draws pictures, [{input, file, until, panels}], in one headless Chromium.
// `until` is the title of the panel before which the picture ends, or null; `panels` a folder for a
// picture of each panel, or null. Prints the reports, one JSON a line.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';

import puppeteer from 'puppeteer-core';

const ORIGIN = 'http://page.invalid/'; // never asked: every request is answered here
const MODULES = new URL('node_modules/', import.meta.url);
const FOLDERS = {
  'build/img/': '@grafana/ui/dist/public/img/',
  'fonts/inter/': 'inter-ui/web/',
};
const MONO = '@fontsource/roboto-mono/files/roboto-mono-latin-400-normal.woff2';
const TYPES = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', woff2: 'font/woff2' };

function fileOf(path) {
  if (path === 'page.js' || path === 'page.css') {
    return new URL(`out/${path}`, import.meta.url);
  }
  if (path.startsWith('fonts/roboto/')) {
    return new URL(MONO, MODULES);
  }
  const [prefix, folder] = Object.entries(FOLDERS).find(([prefix]) => path.startsWith(prefix)) ?? [];
  return prefix && new URL(folder + path.slice(prefix.length), MODULES);
}

const page_ = (input) => `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><link rel="stylesheet" href="/page.css">
<body style="margin:0"><div id="root"></div><script>
window.__grafana_public_path__ = '/'; Date.now = () => ${input.to}; window.__input = ${JSON.stringify(input).replaceAll('<', '\\u003c')};
</script><script src="/page.js"></script>`;

async function answer(request, input, missing) {
  const path = new URL(request.url()).pathname.slice(1);
  if (path === '') {
    return request.respond({ contentType: 'text/html', body: page_(input) });
  }
  try {
    const contentType = TYPES[path.split('.').at(-1)];
    return await request.respond({ contentType, body: await readFile(fileOf(path)) });
  } catch {
    missing.push(path);
    return request.respond({ status: 404 });
  }
}

// Charts and rows of tables come a moment after their panels.
function isWhole() {
  const drawnBy = { table: '[role=row] [role=gridcell]', timeseries: 'canvas', 'state-timeline': 'canvas' };
  return window.__report.panels.every(
    ({ id, type, rows }) => !rows || !(type in drawnBy) || document.querySelector(`[data-panel="${id}"] ${drawnBy[type]}`)
  );
}

async function topOf(page, input, title) {
  const { id } = input.dashboard.panels.find((panel) => panel.title === title);
  return page.$eval(`[data-panel="${id}"]`, (element) => Math.floor(element.getBoundingClientRect().top));
}

async function draw(browser, { input, file, until, panels }) {
  const page = await browser.newPage();
  const missing = [];
  await page.setViewport({ width: input.width, height: 900 });
  await page.setRequestInterception(true);
  page.on('request', (request) => void answer(request, input, missing));
  await page.goto(ORIGIN, { waitUntil: 'networkidle0' });
  await page.waitForSelector('[data-drawn=true]', { timeout: 30_000 }).catch(() => missing.push('(nothing was drawn)'));
  // As high as the page, or rows of tables that are out of sight are not drawn.
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewport({ width: input.width, height });
  await page.waitForNetworkIdle({ idleTime: 300 });
  await page.waitForFunction(isWhole, { timeout: 30_000 }).catch(() => missing.push('(what some panel shows)'));
  const end = until === null ? height : await topOf(page, input, until);
  // Beyond the viewport nothing is captured: for that Chromium would lay out the page once more.
  await page.screenshot({ path: file, clip: { x: 0, y: 0, width: input.width, height: end }, captureBeyondViewport: false });
  for (const panel of panels ? await page.$$('[data-panel]') : []) {
    const id = await panel.evaluate((element) => element.dataset.panel);
    await panel.screenshot({ path: join(panels, `${id}.png`) });
  }
  const report = await page.evaluate(() => window.__report);
  await page.close();
  return { file, missing, ...report };
}

const jobs = JSON.parse(await readFile(process.argv[2]));
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--force-color-profile=srgb', '--font-render-hinting=none'],
});
try {
  for (const job of jobs) {
    console.log(JSON.stringify(await draw(browser, job)));
  }
} finally {
  await browser.close();
}
