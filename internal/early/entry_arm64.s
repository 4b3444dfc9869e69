#include "textflag.h"

// Numbers of the kernel's (asm-generic/unistd.h, linux/prctl.h).
#define SYS_sched_setaffinity 122
#define SYS_sched_getaffinity 123
#define SYS_prctl 167
#define SYS_getcpu 168
#define PR_SET_TIMERSLACK 29
#define PR_GET_TIMERSLACK 30

// entry is what it is in entry_amd64.s.
TEXT ·entry(SB),NOSPLIT|NOFRAME,$0
	MOVD	$SYS_prctl, R8
	MOVD	$PR_GET_TIMERSLACK, R0
	SVC
	CMP	$0, R0
	BLE	processors
	MOVD	R0, R19
	MOVD	$SYS_prctl, R8
	MOVD	$PR_SET_TIMERSLACK, R0
	MOVD	$10000000, R1
	SVC
	CBNZ	R0, processors
	MOVD	R19, ·slackBefore(SB)

processors:
	MOVD	$SYS_sched_getaffinity, R8
	MOVD	ZR, R0
	MOVD	$128, R1
	MOVD	$·before(SB), R2
	SVC
	CMP	$0, R0
	BLE	runtime
	MOVD	R0, R19
	MOVD	$SYS_getcpu, R8
	MOVD	$·processor(SB), R0
	MOVD	ZR, R1
	MOVD	ZR, R2
	SVC
	CBNZ	R0, runtime
	MOVWU	·processor(SB), R3
	CMPW	$1024, R3
	BHS	runtime
	// The bit of the processor, in the mask's word of it.
	LSR	$6, R3, R4
	AND	$63, R3, R3
	MOVD	$1, R5
	LSL	R3, R5, R5
	MOVD	$·one(SB), R2
	MOVD	R5, (R2)(R4<<3)
	MOVD	$SYS_sched_setaffinity, R8
	MOVD	ZR, R0
	MOVD	$128, R1
	SVC
	CBNZ	R0, runtime
	MOVD	R19, ·size(SB)

runtime:
	JMP	_rt0_arm64_linux(SB)
