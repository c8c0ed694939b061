// What a committed dashboard has to be to Grafana: `check_types` has tsc assign each to it.
// The schema leaves a panel's options and its custom field config open; they are those of its kind.
import type { AnnotationQuery, Dashboard, FieldConfig, Panel, RowPanel } from '@grafana/schema';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// As JSON has it: the value of an enum's member instead of the member.
type Json<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

interface Kind<Type, Options, Custom> extends Omit<Json<Panel>, 'type' | 'options' | 'fieldConfig'> {
  type: Type;
  options: Json<Partial<Options>>;
  fieldConfig: { defaults: Omit<Json<FieldConfig>, 'custom'> & { custom?: Json<Partial<Custom>> }; overrides: Json<NonNullable<Panel['fieldConfig']>>['overrides'] };
}

// Beside the schema's own: what the Prometheus data source reads of an annotation.
interface Annotation extends Json<AnnotationQuery> {
  expr: string;
  step: string;
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
}

export type Committed = Omit<Json<Dashboard>, 'annotations' | 'panels'> & {
  annotations: { list: Annotation[] };
  panels: Array<
    | Json<RowPanel>
    | Kind<'stat', stat.Options, object>
    | Kind<'state-timeline', timeline.Options, timeline.FieldConfig>
    | Kind<'table', table.Options, table.FieldConfig>
    | Kind<'timeseries', timeseries.Options, timeseries.FieldConfig>
  >;
};
