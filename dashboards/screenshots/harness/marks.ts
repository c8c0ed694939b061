// Annotations, as Grafana marks them on a time axis: a dashed line with a foot, or a tinted region.
import { colorManipulator } from '@grafana/data';
import type { UPlotConfigBuilder } from '@grafana/ui';
import type uPlot from 'uplot';

import { input, theme } from './grafana';

const FOOT = 5; // pixels

export function addMarks(builder: UPlotConfigBuilder): void {
  builder.addHook('draw', (u: uPlot) => {
    const { ctx, bbox } = u;
    const bottom = bbox.top + bbox.height;
    ctx.save();
    for (const event of input.events) {
      const left = Math.round(u.valToPos(Math.max(event.from, input.from), 'x', true));
      const right = Math.round(u.valToPos(Math.min(event.to, input.to), 'x', true));
      const color = theme.visualization.getColorByName(event.color);
      ctx.strokeStyle = ctx.fillStyle = color;
      ctx.setLineDash([5, 5]);
      for (const x of new Set([left, right])) {
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bottom);
        ctx.stroke();
      }
      if (right > left) {
        ctx.fillRect(left, bottom, right - left, FOOT);
        ctx.fillStyle = colorManipulator.alpha(color, 0.1);
        ctx.fillRect(left, bbox.top, right - left, bbox.height);
      } else {
        ctx.beginPath();
        ctx.moveTo(left, bottom);
        ctx.lineTo(left - FOOT, bottom + FOOT);
        ctx.lineTo(left + FOOT, bottom + FOOT);
        ctx.fill();
      }
    }
    ctx.restore();
  });
}
