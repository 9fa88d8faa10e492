# Decides whether a program's memory, descriptors and threads stay flat; sourced by soak.sh.
# Expects lib.sh. A file of samples has one line per sample and program: SECOND PROGRAM KIB DESCRIPTORS THREADS.
# shellcheck shell=bash
set -euo pipefail

# Fewer samples than this prove nothing.
trend_min_samples=20
# Growth over the measured time above which a series is not flat. Memory may grow by 2 MiB or 5 % of its median,
# whichever is more: a leak of one byte per event is above it after some two million events.
trend_limit_kib=2048 trend_limit_percent=5 trend_limit_count=2

series() { awk -v name="$2" -v column="$3" -v from="$4" '$2 == name && $1 >= from { print $1, $column }' "$1"; }

middle() { sort --general-numeric-sort | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

# growth FILE PROGRAM COLUMN FROM: prints the number of samples since second FROM, their median, and their growth: the
# median of the slopes between all pairs of samples, which outliers do not move, times the time from first to last.
growth() {
  local values median slope
  values=$(series "$@")
  median=$(awk 'NF { print $2 }' <<<"$values" | middle)
  slope=$(awk 'NF { at[NR] = $1; value[NR] = $2 }
    END { for (j = 2; j <= NR; j++) for (i = 1; i < j; i++) if (at[j] > at[i]) print (value[j] - value[i]) / (at[j] - at[i]) }' \
    <<<"$values" | middle)
  awk -v median="${median:-0}" -v slope="${slope:-0}" '!n++ { first = $1 } { last = $1 }
    END { printf "%d %d %.0f\n", NF ? n : 0, median, slope * (last - first) }' <<<"$values"
}

# judge_samples FILE FROM PROGRAM…: prints a table with a row per program and series; fails unless all are flat.
judge_samples() {
  local file=$1 from=$2 program column what count median grown limit verdict failed=0
  shift 2
  echo "| program | series | samples | median | growth | limit | verdict |"
  echo "| --- | --- | ---: | ---: | ---: | ---: | --- |"
  for program; do
    for column in 3 4 5; do
      read -r count median grown < <(growth "$file" "$program" "$column" "$from")
      limit=$trend_limit_count
      case $column in
        3) what='memory, KiB' limit=$((median * trend_limit_percent / 100)) ;;
        4) what=descriptors ;;
        5) what=threads ;;
      esac
      if ((column == 3 && limit < trend_limit_kib)); then limit=$trend_limit_kib; fi
      verdict=flat
      if ((count < trend_min_samples)); then verdict='too few samples'; elif ((grown > limit)); then verdict=grows; fi
      [[ $verdict == flat ]] || failed=1
      echo "| $program | $what | $count | $median | $grown | $limit | $verdict |"
    done
  done
  return "$failed"
}
