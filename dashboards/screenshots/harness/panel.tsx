// What is inside of a panel's frame.
import {
  type DataFrame,
  type FieldDisplay,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
} from '@grafana/data';
import { defaultOptions as stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import { defaultOptions as table } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import { BigValue, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

import { timeRange } from './frames';
import { theme } from './grafana';
import { addMarks } from './marks';
import { fillIn } from './references';
import { StateTimeline } from './timeline';

interface Props {
  panel: any;
  frames: DataFrame[];
  width: number;
  height: number;
}

export function Panel({ panel, frames, width, height }: Props) {
  const empty = !frames.some((frame) => frame.fields.length > 0);
  if (empty && panel.type !== 'stat') {
    return <NoData text={panel.fieldConfig?.defaults?.noValue ?? 'No data'} />;
  }
  switch (panel.type) {
    case 'stat':
      return <Stat panel={panel} frames={frames} width={width} height={height} />;
    case 'timeseries':
      return (
        <TimeSeries
          frames={frames}
          width={width}
          height={height}
          timeRange={timeRange}
          timeZone="utc"
          legend={{ displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [], ...panel.options?.legend }}
          options={panel.options}
        >
          {(builder) => (addMarks(builder), null)}
        </TimeSeries>
      );
    case 'state-timeline':
      return <StateTimeline frames={frames} options={panel.options} width={width} height={height} />;
    case 'table': {
      const options = { ...table, ...panel.options };
      return (
        <TableNG
          data={frames[0]}
          width={width}
          height={height}
          noHeader={!options.showHeader}
          showTypeIcons={options.showTypeIcons}
          sortBy={options.sortBy}
          cellHeight={options.cellHeight}
          maxRowHeight={options.maxRowHeight}
          frozenColumns={options.frozenColumns?.left}
          enablePagination={options.enablePagination}
          noValue={panel.fieldConfig.defaults.noValue}
          timeRange={timeRange}
          fieldConfig={panel.fieldConfig}
          getActions={() => []}
          structureRev={1}
        />
      );
    }
    default:
      throw new Error(`there is no drawing of panels of type ${panel.type}`);
  }
}

function NoData({ text }: { text: string }) {
  const style = {
    display: 'flex',
    height: '100%',
    alignItems: 'center',
    justifyContent: 'center',
    textAlign: 'center' as const,
    color: theme.colors.text.secondary,
    fontSize: theme.typography.size.lg,
  };
  return <div style={style}>{text}</div>;
}

const LAST = { calcs: ['lastNotNull'], fields: '', values: false };

function values(panel: any, frames: DataFrame[], sparkline: boolean): FieldDisplay[] {
  return getFieldDisplayValues({
    fieldConfig: { overrides: [], ...panel.fieldConfig },
    reduceOptions: { ...LAST, ...panel.options?.reduceOptions },
    replaceVariables: fillIn,
    theme,
    data: frames,
    timeZone: 'utc',
    sparkline,
  });
}

function Stat({ panel, frames, width, height }: Props) {
  const options = { ...stat, ...panel.options };
  const shown = values(panel, frames, options.graphMode !== 'none');
  return (
    <VizRepeater
      source={shown}
      getValues={() => shown}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderCounter={0}
      width={width}
      height={height}
      itemSpacing={3}
      autoGrid
      orientation={options.orientation ?? 'auto'}
      renderValue={({ value, alignmentFactors, count, width: w, height: h }) => (
        <BigValue
          value={value.display}
          count={count}
          sparkline={value.sparkline}
          colorMode={options.colorMode}
          graphMode={options.graphMode}
          justifyMode={options.justifyMode}
          textMode={options.textMode}
          disableWideLayout={!options.wideLayout}
          alignmentFactors={alignmentFactors}
          text={options.text}
          width={w}
          height={h}
          theme={theme}
        />
      )}
    />
  );
}
