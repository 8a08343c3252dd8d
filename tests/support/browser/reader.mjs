// A radiologist at OHIF: opens studies, double-clicks results, answers Yes, and photographs what is on the screen.
//
// Reads one JSON object from standard input:
//   {chromium, playwright, dist, pacs, pictures, width, height, visits: [{name, study, open: ["SEG", "SR"]}]}
// For each visit the study is opened; then each entry of the series list whose modality is named in `open`, in order. Writes
// NAME-film.png, NAME-SEG.png (the whole window), of an SR also NAME-SR-bare.png, without labels and their leaders, and prints one JSON object: NAME -> what could be read there.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { serve } from './site.mjs';

const SECONDS = 1000;
const PANE = '[data-cy="viewport-pane"]';
const SERIES = '[data-cy^="study-browser-thumbnail"]';
const FLAGS = [
  '--no-sandbox', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist', '--disable-quic',
  '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

const order = JSON.parse(readFileSync(0, 'utf8'));
const { chromium } = createRequire(order.playwright + '/')('.');
const site = await serve(order.dist, order.pacs);
const address = `http://127.0.0.1:${site.address().port}`;
const browser = await chromium.launch({ executablePath: order.chromium, headless: true, args: FLAGS });
try {
  const room = await browser.newContext({ viewport: { width: order.width, height: order.height } });
  await room.addInitScript(() => localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour'])));
  const seen = {};
  for (const visit of order.visits) seen[visit.name] = await read(room, visit);
  console.log(JSON.stringify({ browser: browser.version(), seen }));
} finally {
  await browser.close();
  site.close();
}

/** One study in a fresh page. */
async function read(room, { name, study, open }) {
  const page = await room.newPage();
  const errors = [];
  page.on('pageerror', error => errors.push(error.message));
  page.on('console', said => said.type() === 'error' && errors.push(said.text().slice(0, 500)));
  page.on('response', answer => answer.status() >= 400 && errors.push(`${answer.status()} ${new URL(answer.url()).pathname}`));
  const seen = { errors, pictures: {}, asked: {}, texts: {}, said: {} };
  const photograph = async what => {
    const file = path.join(order.pictures, `${name}-${what}.png`);
    writeFileSync(file, await settled(page));
    seen.pictures[what] = file;
    seen.texts[what] = await page.locator(`${PANE} svg text`).allTextContents();
    seen.said[what] = (await page.locator(PANE).allInnerTexts()).join('\n');
  };
  try {
    await page.goto(`${address}/viewer?StudyInstanceUIDs=${study}`);
    await page.waitForFunction(somethingIsShown, `${PANE} canvas`, { timeout: 60 * SECONDS, polling: 300 });
    await photograph('film');
    for (const modality of open) {
      await openSeries(page, modality);
      const photographed = path.join(order.pictures, `${name}-${modality}-asked.png`);
      seen.asked[modality] = await answerYes(page, modality === 'SEG' ? 20 : 3, photographed);
      await photograph(modality);
      if (modality !== 'SR') continue;
      const hiding = await page.addStyleTag({ content: `${PANE} svg :is(text, line) { display: none }` });
      await photograph('SR-bare');
      await hiding.evaluate(style => style.remove());
    }
  } catch (error) {
    seen.stuck = error.message;
    await page.screenshot({ path: (seen.pictures.stuck = path.join(order.pictures, `${name}-stuck.png`)) });
  }
  seen.words = (await page.locator('body').innerText()).replaceAll(/\s*\n\s*/g, ' | ');
  seen.panes = await boxes(page, PANE);
  seen.series = await page.locator(SERIES).allInnerTexts();
  await page.close();
  return seen;
}

/** In the page: does a canvas hold more than one shade? */
function somethingIsShown(selector) {
  return [...document.querySelectorAll(selector)].some(canvas => {
    const { width, height } = canvas;
    const values = width && height ? canvas.getContext('2d')?.getImageData(0, 0, width, height).data : null;
    if (!values) return false;
    for (let at = 0; at < values.length; at += 400) if (Math.abs(values[at] - values[0]) > 20) return true;
    return false;
  });
}

async function openSeries(page, modality) {
  const entry = page.locator(SERIES).filter({ has: page.getByText(modality, { exact: true }) });
  await entry.first().dblclick({ timeout: 30 * SECONDS });
}

/** What was asked, and photographed, before the answer Yes; null when nothing was asked in time. */
async function answerYes(page, seconds, photographed) {
  const yes = page.locator('[data-cy="yes-hydrate-btn"]');
  try {
    await yes.waitFor({ timeout: seconds * SECONDS });
  } catch {
    return null;
  }
  const asked = await page.locator('[data-cy="viewport-notification"]').innerText();
  await page.screenshot({ path: photographed });
  await yes.click();
  await yes.waitFor({ state: 'detached', timeout: 30 * SECONDS });
  return asked;
}

/** A picture that did not change any more. */
async function settled(page) {
  let before = Buffer.alloc(0);
  for (let tries = 0; tries < 60; tries++) {
    await page.waitForTimeout(500);
    const now = await page.screenshot();
    if (now.equals(before)) return now;
    before = now;
  }
  throw new Error('the picture never came to rest');
}

async function boxes(page, selector) {
  return Promise.all((await page.locator(selector).all()).map(one => one.boundingBox()));
}
