// What Grafana's application sets up when it starts, and its packages then rely on.
import {
  createTheme,
  dataLinksOverrideProcessor,
  displayNameOverrideProcessor,
  FieldConfigOptionsRegistry,
  identityOverrideProcessor,
  locationUtil,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  thresholdsOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';

import type { Input } from './input';

export const input: Input = (window as any).__input;
export const theme = createTheme({ colors: { mode: input.theme } });

const STANDARD: Record<string, any> = {
  unit: identityOverrideProcessor,
  min: identityOverrideProcessor,
  max: identityOverrideProcessor,
  fieldMinMax: identityOverrideProcessor,
  decimals: identityOverrideProcessor,
  displayName: displayNameOverrideProcessor,
  noValue: identityOverrideProcessor,
  mappings: valueMappingsOverrideProcessor,
  thresholds: thresholdsOverrideProcessor,
  color: identityOverrideProcessor,
  links: dataLinksOverrideProcessor,
  description: identityOverrideProcessor,
};

const option = (path: string, process: any, isCustom = false) =>
  ({ id: isCustom ? `custom.${path}` : path, path, name: path, process, isCustom, shouldApply: () => true, settings: {} }) as any;

// A plugin lists its own options; those that a dashboard sets are the ones that matter here.
export function registryFor(fieldConfig: any): FieldConfigOptionsRegistry {
  const set = (fieldConfig.overrides ?? []).flatMap((o: any) => o.properties.map((p: any) => p.id));
  const own = new Set<string>(Object.keys(fieldConfig.defaults?.custom ?? {}));
  set.filter((id: string) => id.startsWith('custom.')).forEach((id: string) => own.add(id.slice('custom.'.length)));
  return new FieldConfigOptionsRegistry(() => [
    ...standardFieldConfigEditorRegistry.list(),
    ...[...own].map((path) => option(path, identityOverrideProcessor, true)),
  ]);
}

export const transformers = new Map<string, any>(Object.values(standardTransformers).map((t: any) => [t.id, t]));

export function setUp(): void {
  standardFieldConfigEditorRegistry.setInit(() => Object.entries(STANDARD).map(([path, process]) => option(path, process)));
  standardTransformersRegistry.setInit(() =>
    [...transformers.values()].map((t) => ({ id: t.id, name: t.name, transformation: async () => t }) as any)
  );
  locationUtil.initialize({
    config: { appSubUrl: '' } as any,
    getTimeRangeForUrl: () => ({ from: String(input.from), to: String(input.to) }),
    getVariablesUrlParams: () => ({}),
  });
}
