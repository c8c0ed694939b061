// References that only make sense beside a value, as data links have them: ${__data.fields.vm},
// ${__value.text}, ${__field.labels.vm}, ${__url_time_range}. Variables were filled in before.
import type { ScopedVars } from '@grafana/data';

import { input } from './grafana';

const REFERENCE = /\$\{(__[a-z_]+)([^}:]*)(?::(\w+))?\}/g;

export function fillIn(text: string, scoped?: ScopedVars, how?: unknown): string {
  return text.replace(REFERENCE, (whole, name, path, format) => {
    const value = valueOf(name, path, scoped?.__dataContext?.value);
    if (value === undefined) {
      return whole;
    }
    switch (format ?? how) {
      case 'percentencode':
        return encodeURIComponent(value);
      case 'uriencode':
        return name === '__url_time_range' ? value : encodeURI(value);
      default:
        return value;
    }
  });
}

function valueOf(name: string, path: string, context: any): string | undefined {
  if (name === '__url_time_range') {
    return `from=${input.from}&to=${input.to}`;
  }
  if (!context) {
    return undefined;
  }
  const { frame, field, rowIndex = 0 } = context;
  const shown = (f: any) => (f ? (f.display?.(f.values[rowIndex]).text ?? String(f.values[rowIndex])) : undefined);
  switch (name) {
    case '__data': {
      const wanted = path.replace(/^\.fields[.[]"?/, '').replace(/"?\]?(\.(text|numeric))?$/, '');
      return shown(frame.fields.find((f: any) => f.name === wanted || f.config.displayName === wanted));
    }
    case '__value':
      return path === '.raw' ? String(field.values[rowIndex]) : shown(field);
    case '__field':
      return path === '.name' ? field.name : field.labels?.[path.replace(/^\.labels\.?/, '')];
    default:
      return undefined;
  }
}
