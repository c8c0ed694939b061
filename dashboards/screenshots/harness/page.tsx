// One dashboard as a page: draws what window.__input says, then tells window.__report.
import { type DataFrame, ThemeContext } from '@grafana/data';
import { GlobalStyles, Icon, PanelChrome } from '@grafana/ui';
import { Component, type ReactNode, useEffect, useState } from 'react';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';

import { framesOf, linksIn, wrongIn } from './frames';
import { input, setUp, theme } from './grafana';
import type { Report } from './input';
import { Panel } from './panel';

// Grafana's grid: 24 columns, and one column of panels where the screen is narrow.
const COLUMNS = 24;
const CELL = 30; // pixels, the height of a row of the grid
const GAP = 8;
const NARROW = theme.breakpoints.values.md;
const MARGIN = 16;

const report: Report = { errors: [], panels: [] };
const consoleError = console.error;
console.error = (...said: unknown[]) => {
  report.errors.push(said.map(String).join(' ').slice(0, 400));
  consoleError(...said);
};
window.addEventListener('error', (event) => report.errors.push(event.message));

class Boundary extends Component<{ title: string; children: ReactNode }, { error?: Error }> {
  override state: { error?: Error } = {};
  static getDerivedStateFromError = (error: Error) => ({ error });
  override componentDidCatch(error: Error) {
    report.errors.push(`${this.props.title}: ${error}`);
  }
  override render() {
    return this.state.error ? <pre>{String(this.state.error)}</pre> : this.props.children;
  }
}

function placeOf(panel: any, width: number) {
  const { x, y, w, h } = panel.gridPos;
  const column = (width + GAP) / COLUMNS;
  return { left: x * column, top: y * (CELL + GAP), width: w * column - GAP, height: h * (CELL + GAP) - GAP };
}

// On a narrow screen panels come one below the other, in the order of the grid.
function stacked(panels: any[], width: number) {
  let top = 0;
  return [...panels]
    .sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x)
    .map((panel) => {
      const place = { left: 0, top, width, height: panel.gridPos.h * (CELL + GAP) - GAP };
      top += place.height + GAP;
      return { panel, place };
    });
}

function Framed({ panel, place, frames }: { panel: any; place: any; frames: DataFrame[] }) {
  return (
    <PanelChrome
      width={place.width}
      height={place.height}
      title={panel.title}
      description={panel.description}
      displayMode={panel.transparent ? 'transparent' : 'default'}
      hoverHeader={!panel.title}
    >
      {(width, height) => (
        <Boundary title={panel.title}>
          <Panel panel={panel} frames={frames} width={width} height={height} />
        </Boundary>
      )}
    </PanelChrome>
  );
}

function RowTitle({ title }: { title: string }) {
  return (
    <div style={{ display: 'flex', alignItems: 'center', gap: 8, height: CELL, ...theme.typography.h5 }}>
      <Icon name="angle-down" />
      {title}
    </div>
  );
}

function Chosen({ label, value }: { label: string; value: string }) {
  const box = { padding: '0 8px', height: 32, display: 'flex', alignItems: 'center', border: `1px solid ${theme.components.input.borderColor}` };
  return (
    <div style={{ display: 'flex', fontSize: theme.typography.bodySmall.fontSize }}>
      <div style={{ ...box, background: theme.colors.background.primary, fontWeight: 500 }}>{label}</div>
      <div style={{ ...box, background: theme.components.input.background, borderLeft: 0 }}>{value}</div>
    </div>
  );
}

function Head() {
  const clock = (at: number) => new Date(at).toISOString().slice(0, 16).replace('T', ' ');
  const links = input.dashboard.links ?? [];
  return (
    <div style={{ marginBottom: 16 }}>
      <div style={{ ...theme.typography.h4, marginBottom: 12 }}>{input.dashboard.title}</div>
      <div style={{ display: 'flex', flexWrap: 'wrap', gap: 8, alignItems: 'center' }}>
        {input.variables.map((variable) => (
          <Chosen key={variable.label} {...variable} />
        ))}
        <div style={{ flexGrow: 1 }} />
        {links.map((link: any) => (
          <Chosen key={link.title} label="→" value={link.title} />
        ))}
        <Chosen label="UTC" value={`${clock(input.from)} to ${clock(input.to)}`} />
      </div>
    </div>
  );
}

function Page({ frames }: { frames: Map<number, DataFrame[]> }) {
  const width = input.width - 2 * MARGIN;
  const panels = input.dashboard.panels;
  const placed =
    input.width < NARROW ? stacked(panels, width) : panels.map((panel: any) => ({ panel, place: placeOf(panel, width) }));
  const height = Math.max(...placed.map(({ place }: any) => place.top + place.height));
  const [drawn, setDrawn] = useState(false);
  useEffect(() => setDrawn(true), []);
  return (
    <ThemeContext.Provider value={theme}>
      <div data-drawn={drawn} style={{ padding: MARGIN, background: theme.colors.background.canvas, color: theme.colors.text.primary }}>
        <Head />
        <div style={{ position: 'relative', height }}>
          {placed.map(({ panel, place }: any) => (
            <div key={panel.id} data-panel={panel.id} style={{ position: 'absolute', ...place }}>
              {panel.type === 'row' ? <RowTitle title={panel.title} /> : <Framed panel={panel} place={place} frames={frames.get(panel.id)!} />}
            </div>
          ))}
        </div>
      </div>
    </ThemeContext.Provider>
  );
}

// What is written on a canvas does not wait for its font: so styles, fonts, and then the page.
async function loadFonts() {
  const styles = document.head.appendChild(document.createElement('div'));
  flushSync(() =>
    createRoot(styles).render(
      <ThemeContext.Provider value={theme}>
        <GlobalStyles />
      </ThemeContext.Provider>
    )
  );
  await Promise.all(['400 12px Inter', '500 12px Inter', '400 12px "Roboto Mono"'].map((font) => document.fonts.load(font)));
}

async function main() {
  setUp();
  const frames = new Map<number, DataFrame[]>();
  for (const panel of input.dashboard.panels.filter((panel: any) => panel.type !== 'row')) {
    const own = await framesOf(panel);
    frames.set(panel.id, own);
    const rows = own.reduce((sum, frame) => sum + frame.length, 0);
    const { id, title, type } = panel;
    report.panels.push({ id, title, type, frames: own.length, rows, links: linksIn(own), wrong: wrongIn(panel) });
  }
  await loadFonts();
  createRoot(document.getElementById('root')!).render(<Page frames={frames} />);
  (window as any).__report = report;
}

void main().catch((error) => console.error(`the page: ${error.stack}`));
