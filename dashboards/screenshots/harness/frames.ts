// From what Prometheus answered to what a panel is given: as Grafana's Prometheus data source, its
// transformations and its field overrides make it.
import {
  applyFieldOverrides,
  applyNullInsertThreshold,
  cacheFieldDisplayNames,
  type DataFrame,
  dateTime,
  FieldType,
  getValueFormats,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

import { input, registryFor, theme, transformers } from './grafana';
import type { Answer } from './input';
import { fillIn } from './references';

export const timeRange = {
  from: dateTime(input.from),
  to: dateTime(input.to),
  raw: { from: dateTime(input.from), to: dateTime(input.to) },
};

// The field config that a plugin starts from.
const PLUGIN_COLORS: Record<string, string> = { timeseries: 'palette-classic', 'state-timeline': 'continuous-GrYlRd' };

const number = (text: string) => (text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text));

function table(refId: string, answer: Answer, valueName: string): DataFrame[] {
  const rows = answer.result;
  if (!rows.length) {
    return [];
  }
  const labels = [...new Set(rows.flatMap((row) => Object.keys(row.metric)))].sort();
  const fields = [
    { name: 'Time', type: FieldType.time, values: rows.map((row) => row.value![0] * 1000), config: {} },
    ...labels.map((label) => ({
      name: label,
      type: FieldType.string,
      values: rows.map((row) => row.metric[label]),
      config: {},
    })),
    { name: valueName, type: FieldType.number, values: rows.map((row) => number(row.value![1])), config: {} },
  ];
  return [toDataFrame({ refId, fields })];
}

const legend = (format: string | undefined, labels: Record<string, string>) =>
  !format || format === '__auto' ? undefined : format.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');

function series(target: any, answer: Answer): DataFrame[] {
  return answer.result.map(({ metric, value, values }) => {
    const points = values ?? [value!];
    const displayNameFromDS = legend(target.legendFormat, metric);
    return toDataFrame({
      refId: target.refId,
      name: displayNameFromDS,
      fields: [
        { name: 'Time', type: FieldType.time, config: { interval: answer.step }, values: points.map(([at]) => at * 1000) },
        {
          name: 'Value',
          type: FieldType.number,
          labels: metric,
          config: displayNameFromDS === undefined ? {} : { displayNameFromDS },
          values: points.map(([, v]) => number(v)),
        },
      ],
    });
  });
}

function fromPrometheus(panel: any): DataFrame[] {
  const targets = (panel.targets ?? []).filter((target: any) => !target.hide);
  const tables = targets.filter((target: any) => target.format === 'table').length;
  return targets.flatMap((target: any) => {
    const answer = input.answers[panel.id][target.refId];
    return target.format === 'table'
      ? table(target.refId, answer, tables > 1 ? `Value #${target.refId}` : 'Value')
      : series(target, answer);
  });
}

const knownUnits = new Set(getValueFormats().flatMap((group) => group.submenu!.map((unit) => unit.value)));

// What Grafana would silently ignore, or this program cannot do.
export function wrongIn(panel: any): string[] {
  const unit = panel.fieldConfig?.defaults?.unit;
  return [
    ...(panel.transformations ?? []).filter((t: any) => !transformers.has(t.id)).map((t: any) => `unknown transformation ${t.id}`),
    ...(unit && !unit.includes(':') && !knownUnits.has(unit) ? [`unknown unit ${unit}`] : []),
    ...(panel.repeat ? ['repeated panels are not drawn'] : []),
  ];
}

export async function framesOf(panel: any): Promise<DataFrame[]> {
  const frames = fromPrometheus(panel);
  const transformed = await firstValueFrom(
    transformDataFrame(panel.transformations ?? [], frames, { interpolate: (text) => text })
  );
  const color = { mode: PLUGIN_COLORS[panel.type] ?? 'thresholds' };
  const fieldConfig = { overrides: [], ...panel.fieldConfig };
  const overridden = applyFieldOverrides({
    data: transformed,
    fieldConfig: { ...fieldConfig, defaults: { color, ...fieldConfig.defaults } },
    fieldConfigRegistry: registryFor(fieldConfig),
    replaceVariables: fillIn,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(overridden);
  return panel.type === 'timeseries' ? overridden.map(withGaps) : overridden;
}

// Where a series has no samples its line stops.
const withGaps = (frame: DataFrame) =>
  applyNullInsertThreshold({ frame, refFieldPseudoMin: input.from, refFieldPseudoMax: input.to });

export function linksIn(frames: DataFrame[]): string[] {
  const fields = frames.flatMap((frame) => frame.fields).filter((field) => field.values.length && field.getLinks);
  return [...new Set(fields.flatMap((field) => field.getLinks!({ valueRowIndex: 0 }).map((link) => link.href)))];
}
