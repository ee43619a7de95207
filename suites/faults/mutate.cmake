# Makes a broken copy of a kernel from a .fault file:
#   story, one or more lines beginning with '#'
#   kernel: repository path of the kernel's source
#   check: the check that must kill it
#   finding: text that must be part of that check's reason
#   cases: pattern of the cases on which it runs; on one of them at least it must be killed with that finding
#   header: (optional) a header that the kernel includes; it is put in place of its #include, to be changed
#   parts: (optional) sources that the kernel is linked with, blank between; they are put in front of it, their
#     functions under names of this fault, to be changed
#   checks: (optional) the only checks that run, blank between; for costly cases, or a time-out in each
#   ---            then the text to be replaced, which must stand in the source exactly once,
#   +++            and what replaces it; as many pairs as needed
file(READ ${INPUT} fault)
string(ASCII 1 semicolon) # CMake splits lists at semicolons: keep them out of the way
string(REPLACE ";" "${semicolon}" fault "${fault}")
foreach(key IN ITEMS kernel check finding cases)
  if(NOT fault MATCHES "(^|\n)${key}: ([^\n]*)\n")
    message(FATAL_ERROR "${INPUT}: the line \"${key}: ...\" is missing")
  endif()
  set(${key} "${CMAKE_MATCH_2}")
endforeach()
set(checks NULL)
if(fault MATCHES "\nchecks: ([^\n]*)\n")
  set(checks "\"${CMAKE_MATCH_1}\"")
endif()
string(REGEX MATCH "^(# [^\n]*\n)+" story "${fault}")
string(REGEX REPLACE "(^|\n)# *" " " story "${story}")
string(STRIP "${story}" story)
string(REPLACE "\"" "\\\"" story "${story}")
string(REPLACE "\"" "\\\"" quoted_finding "${finding}")

file(READ ${ROOT}/${kernel} source)
if(fault MATCHES "\nparts: ([^\n]*)\n")
  string(REPLACE " " ";" parts "${CMAKE_MATCH_1}")
  set(names)
  set(texts)
  foreach(part IN LISTS parts)
    file(READ ${ROOT}/${part} text)
    string(REPLACE ";" "${semicolon}" text "${text}")
    # A definition begins a line; what is static has no clashes to fear.
    string(REGEX MATCHALL "\n(const )?[a-z][a-z0-9_ ]*[ *]cm_[a-z0-9_]+(\\(|\\[\\] = | = )" found "${text}")
    foreach(definition IN LISTS found)
      if(NOT definition MATCHES "^\n(static|typedef|return|extern) ")
        string(REGEX REPLACE ".*[ *](cm_[a-z0-9_]+)(\\(|\\[\\] = | = )" "\\1" name "${definition}")
        string(APPEND names "#define ${name} ${name}_${SYMBOL}\n")
      endif()
    endforeach()
    string(APPEND texts "${text}\n")
  endforeach()
  string(REPLACE "${semicolon}" ";" texts "${texts}")
  set(source "${names}${texts}${source}")
endif()
if(fault MATCHES "\nheader: ([^\n]*)\n")
  set(header ${CMAKE_MATCH_1})
  file(READ ${ROOT}/${header} text)
  if(NOT source MATCHES "#include \"${header}\"")
    message(FATAL_ERROR "${INPUT}: ${kernel} does not include ${header}")
  endif()
  set(line "#include \"${header}\"")
  string(FIND "${source}" "${line}" at)
  string(SUBSTRING "${source}" 0 ${at} head)
  string(SUBSTRING "${source}" ${at} -1 source)
  string(REPLACE "${line}" "" source "${source}") # in parts that follow
  set(source "${head}${text}${source}")
endif()
string(REPLACE ";" "${semicolon}" source "${source}")
string(FIND "${fault}" "\n---\n" at)
if(at EQUAL -1)
  message(FATAL_ERROR "${INPUT}: no line '---' with a text to replace")
endif()
while(NOT at EQUAL -1)
  math(EXPR begin "${at} + 5")
  string(SUBSTRING "${fault}" ${begin} -1 fault)
  string(FIND "${fault}" "\n+++\n" middle)
  if(middle EQUAL -1)
    message(FATAL_ERROR "${INPUT}: '---' without '+++'")
  endif()
  string(SUBSTRING "${fault}" 0 ${middle} old)
  math(EXPR begin "${middle} + 5")
  string(SUBSTRING "${fault}" ${begin} -1 fault)
  string(FIND "${fault}" "\n---\n" at)
  string(SUBSTRING "${fault}" 0 ${at} new)
  string(REGEX REPLACE "\n$" "" new "${new}")
  string(FIND "${source}" "${old}" first)
  string(FIND "${source}" "${old}" last REVERSE)
  if(first EQUAL -1 OR NOT first EQUAL last)
    message(FATAL_ERROR "${INPUT}: this text must stand exactly once in ${kernel}:\n${old}")
  endif()
  string(REPLACE "${old}" "${new}" source "${source}")
endwhile()

if(NOT source MATCHES "const cm_kernel (cm_[a-z0-9_]+) = ")
  message(FATAL_ERROR "${INPUT}: ${kernel} has no kernel descriptor")
endif()
string(REPLACE "const cm_kernel ${CMAKE_MATCH_1} = " "static const cm_kernel broken_kernel = " source "${source}")
string(REPLACE "__FILE__" "\"suites/faults/${ID}.fault\"" source "${source}")
set(text "// Made from suites/faults/${ID}.fault and ${kernel}; broken on purpose.
#include \"harness/suite.h\"
${source}
extern const cm_fault cm_fault_${SYMBOL};
const cm_fault cm_fault_${SYMBOL} = {
    .id = \"${ID}\",
    .kernel = &broken_kernel,
    .check = \"${check}\",
    .finding = \"${quoted_finding}\",
    .cases = \"${cases}\",
    .checks = ${checks},
    .story = \"${story}\",
};
")
string(REPLACE "${semicolon}" ";" text "${text}")
file(WRITE ${OUTPUT} "${text}")
