# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# bi_on_gpu(target): a target that only a GPU runs. Where there is none, all that is asked of it is that it compiles.
function(bi_on_gpu target)
  if(BI_QUICK_BUILD)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-O0>" ${BI_QUICK_KERNELS})
  endif()
endfunction()

# bi_strict(target): the warnings that bi's own targets are held to.
function(bi_strict target)
  target_compile_options(
    ${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wshadow>"
                      # -Wconversion and -Wshadow fire in the host code that nvcc generates.
                      "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>")
  if(BI_WERROR)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Werror>"
                                             "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>")
  endif()
endfunction()
