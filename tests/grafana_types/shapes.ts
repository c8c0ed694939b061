// What a committed dashboard may hold: the types of Grafana's own schema, and nothing beside them.
import type { AnnotationQuery, Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel } from '@grafana/schema';
import type * as statPanel from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as stateTimelinePanel from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as tablePanel from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeSeriesPanel from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has no enums: a member's value will do.
type Json<T> = unknown extends T ? T
  : T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : { [K in keyof T]: Json<T[K]> };

// What the schema leaves open, as the Prometheus data source and Grafana's links have it.
interface Query { refId: string; expr: string; datasource: { type: 'prometheus'; uid: '${datasource}' };
  editorMode: 'code'; format?: 'table'; instant?: boolean; range?: boolean; legendFormat?: string; }
interface DataLink { title: string; url: string; }
interface OfPrometheus { expr: string; step: string; titleFormat: string; textFormat: string; tagKeys: string; }

type Fields<C> = Omit<FieldConfigSource, 'defaults'> & {
  defaults: Omit<FieldConfig, 'custom' | 'links'> & { custom?: Partial<C>; links?: DataLink[] } };
type Of<T extends string, O, C> = Json<Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: T; options: Partial<O>; fieldConfig: Fields<C>; targets: Query[] }>;

export type row = Json<RowPanel>;
export type stat = Of<'stat', statPanel.Options, Record<string, never>>;
export type table = Of<'table', tablePanel.Options, tablePanel.FieldConfig>;
export type timeseries = Of<'timeseries', timeSeriesPanel.Options, timeSeriesPanel.FieldConfig>;
export type statetimeline = Of<'state-timeline', stateTimelinePanel.Options, stateTimelinePanel.FieldConfig>;
export type dashboard = Json<Omit<Dashboard, 'panels' | 'annotations'> & {
  panels: []; annotations: { list: Array<AnnotationQuery & OfPrometheus> } }>;
