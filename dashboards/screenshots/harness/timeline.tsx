// A state timeline. Grafana's own is part of its application and in no package, so the bars are drawn
// here, by the rules of it that matter to a reader: where a state begins and ends, what it is
// called and which colour it has, what of its name fits. Axes, legend and pages are Grafana's.
import {
  type DataFrame,
  type Field,
  FALLBACK_COLOR,
  FieldType,
  formattedValueToString,
  getActiveThreshold,
  getFieldDisplayName,
  getValueFormat,
  colorManipulator,
  type Threshold,
} from '@grafana/data';
import { AxisPlacement, LegendDisplayMode, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { defaultFieldConfig, defaultOptions } from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import { Pagination, UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend, type VizLegendItem } from '@grafana/ui';
import type uPlot from 'uplot';

import { input, theme } from './grafana';
import { addMarks } from './marks';

interface State {
  from: number;
  to: number;
  text: string;
  color: string;
}

interface Row {
  name: string;
  field: Field;
  states: State[];
}

interface Props {
  frames: DataFrame[];
  options: any;
  width: number;
  height: number;
}

export function StateTimeline({ frames, options: given, width, height }: Props) {
  const options = { ...defaultOptions, ...given };
  const all = frames.flatMap((frame) => rowsOf(frame, frames, options));
  const rows = all.slice(0, options.perPage);
  const pages = Math.ceil(all.length / options.perPage);
  const items = options.legend?.showLegend === false ? undefined : legendOf(rows);
  const legend = items && (
    <VizLayout.Legend placement={options.legend?.placement ?? 'bottom'}>
      <VizLegend placement={options.legend?.placement ?? 'bottom'} items={items} displayMode={options.legend?.displayMode ?? LegendDisplayMode.List} />
    </VizLayout.Legend>
  );
  return (
    <>
      <VizLayout width={width} height={height - (pages > 1 ? 32 : 0)} legend={legend}>
        {(w, h) => <UPlotChart config={chart(rows, options)} data={[[input.from, input.to], [0, 0]]} width={w} height={h} />}
      </VizLayout>
      {pages > 1 && <Pagination currentPage={1} numberOfPages={pages} onNavigate={() => {}} />}
    </>
  );
}

function rowsOf(frame: DataFrame, frames: DataFrame[], options: any): Row[] {
  const time = frame.fields.find((field) => field.type === FieldType.time);
  const others = frame.fields.filter((field) => field.type !== FieldType.time);
  if (!time) {
    return [];
  }
  return others.map((field) => ({
    name: getFieldDisplayName(field, frame, frames),
    field,
    states: statesOf(field, time, options),
  }));
}

function statesOf(field: Field, time: Field, options: any): State[] {
  const states: State[] = [];
  const span = field.config.custom?.spanNulls;
  let before: unknown;
  for (let i = 0; i < time.values.length; i++) {
    if (field.values[i] == null) {
      continue;
    }
    const from = time.values[i];
    const last = states.at(-1);
    const { text, color, merged } = look(field, field.values[i], options.mergeValues);
    // A sample holds until the next is due; beyond that there is a gap, unless gaps are spanned.
    const gap = last && from > last.to && span !== true && !(typeof span === 'number' && from - last.to < span);
    if (last && !gap) {
      last.to = from;
    }
    if (last && !gap && options.mergeValues && merged === before) {
      last.to = from + time.config.interval!;
    } else {
      states.push({ from, to: from + time.config.interval!, text, color });
    }
    before = merged;
  }
  return states.map((state) => ({ ...state, to: Math.min(state.to, input.to) }));
}

// With colours by threshold, merged states are called after the threshold, not by their mapping.
function look(field: Field, value: any, merge: boolean) {
  const steps = field.config.thresholds?.steps;
  if (merge && isByThreshold(field) && field.type === FieldType.number && steps?.length) {
    const step = getActiveThreshold(value, steps);
    return { text: thresholdName(field, step), color: colorOf(step.color), merged: step };
  }
  const display = field.display!(value);
  return { text: formattedValueToString(display), color: display.color ?? FALLBACK_COLOR, merged: value };
}

const isByThreshold = (field: Field) => field.config.color?.mode === 'thresholds';
const colorOf = (name: string) => theme.visualization.getColorByName(name);

function thresholdName(field: Field, step: Threshold): string {
  const steps = field.config.thresholds!.steps;
  const i = steps.indexOf(step);
  const format = (value: number) => formattedValueToString(getValueFormat(field.config.unit ?? '')(value, field.config.decimals));
  return i === 0 && steps.length > 1 ? `< ${format(steps[1].value)}` : `${format(step.value)}+`;
}

function legendOf(rows: Row[]): VizLegendItem[] | undefined {
  const first = rows[0]?.field;
  const steps = first?.config.thresholds?.steps ?? [];
  if (first && isByThreshold(first) && steps.length > 1) {
    return steps.map((step) => ({ label: thresholdName(first, step), color: colorOf(step.color), yAxis: 1 }));
  }
  if (!first || first.config.color?.mode?.startsWith('continuous')) {
    return undefined;
  }
  const colors = new Map(rows.flatMap((row) => row.states.map((state) => [state.text, state.color] as const)));
  return [...colors].map(([label, color]) => ({ label, color, yAxis: 1 }));
}

function chart(rows: Row[], options: any): UPlotConfigBuilder {
  const builder = new UPlotConfigBuilder('utc');
  builder.addScale({
    scaleKey: 'x',
    isTime: true,
    orientation: ScaleOrientation.Horizontal,
    direction: ScaleDirection.Right,
    range: [input.from, input.to],
  });
  builder.addScale({ scaleKey: 'y', isTime: false, orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: [0, 1] });
  builder.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone: 'utc', theme });
  builder.addAxis({
    scaleKey: 'y',
    isTime: false,
    placement: AxisPlacement.Left,
    splits: () => rows.map((_, i) => 1 - (i + 0.5) / rows.length),
    values: () => rows.map((row) => row.name),
    grid: { show: false },
    ticks: { show: false },
    gap: 16,
    theme,
  });
  builder.addSeries({ scaleKey: 'y', pathBuilder: () => null, pointsBuilder: () => false, theme } as any);
  builder.addHook('draw', (u: uPlot) => rows.forEach((row, i) => drawRow(u, row, i, rows.length, options)));
  addMarks(builder);
  return builder;
}

function drawRow(u: uPlot, row: Row, index: number, count: number, options: any): void {
  const { ctx, bbox } = u;
  const lane = bbox.height / count;
  const height = Math.round(lane * options.rowHeight);
  const top = Math.round(bbox.top + index * lane + (lane - height) / 2);
  const opacity = (row.field.config.custom?.fillOpacity ?? defaultFieldConfig.fillOpacity) / 100;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.font = `500 12px ${theme.typography.fontFamily}`;
  ctx.textBaseline = 'middle';
  for (const state of row.states) {
    const left = Math.round(u.valToPos(state.from, 'x', true));
    const width = Math.max(1, Math.round(u.valToPos(state.to, 'x', true)) - left);
    const fill = colorManipulator.alpha(state.color, opacity);
    ctx.fillStyle = fill;
    ctx.fillRect(left, top, width, height);
    drawName(ctx, state.text, fill, left, top + height / 2, width, options.showValue);
  }
  ctx.restore();
}

const LETTER = 9.5; // pixels that Grafana allows for a letter

function drawName(ctx: CanvasRenderingContext2D, text: string, fill: string, left: number, middle: number, width: number, show: string) {
  const letters = Math.floor(width / LETTER);
  if (show === 'never' || (show === 'auto' && letters < 2)) {
    return;
  }
  ctx.fillStyle = theme.colors.getContrastText(fill, 3);
  ctx.fillText(text.slice(0, letters), left + 2, middle);
}
