// What `python -m screenshots` hands over for one picture. Times are Unix milliseconds.
export interface Input {
  theme: 'dark' | 'light';
  width: number;
  from: number;
  to: number;
  dashboard: any; // classic JSON, variables filled in
  answers: Record<string, Record<string, Answer>>; // by id of the panel, then refId
  events: Array<{ name: string; color: string; from: number; to: number }>;
  variables: Array<{ label: string; value: string }>;
}

export interface Answer {
  step: number; // milliseconds
  result: Array<{ metric: Record<string, string>; value?: Sample; values?: Sample[] }>;
}

type Sample = [number, string]; // Unix seconds, and a float as Go writes it

export interface Report {
  errors: string[];
  panels: Array<{ id: number; title: string; type: string; frames: number; rows: number; links: string[]; wrong: string[] }>;
}
