#include "textflag.h"

// Numbers of the kernel's (asm/unistd_64.h, linux/prctl.h).
#define SYS_prctl 157
#define SYS_sched_setaffinity 203
#define SYS_sched_getaffinity 204
#define SYS_getcpu 309
#define PR_SET_TIMERSLACK 29
#define PR_GET_TIMERSLACK 30

// entry is where the kernel enters the program: there is a stack with the arguments, which stays as it is, and nothing else.
// Whatever fails leaves the program where it is.
TEXT ·entry(SB),NOSPLIT|NOFRAME,$0
	MOVL	$SYS_prctl, AX
	MOVL	$PR_GET_TIMERSLACK, DI
	SYSCALL
	CMPQ	AX, $0
	JLE	processors
	MOVQ	AX, R12
	MOVL	$SYS_prctl, AX
	MOVL	$PR_SET_TIMERSLACK, DI
	MOVL	$10000000, SI
	SYSCALL
	TESTQ	AX, AX
	JNE	processors
	MOVQ	R12, ·slackBefore(SB)

processors:
	MOVL	$SYS_sched_getaffinity, AX
	XORL	DI, DI
	MOVL	$128, SI
	LEAQ	·before(SB), DX
	SYSCALL
	CMPQ	AX, $0
	JLE	runtime
	MOVQ	AX, R12
	MOVL	$SYS_getcpu, AX
	LEAQ	·processor(SB), DI
	XORL	SI, SI
	XORL	DX, DX
	SYSCALL
	TESTQ	AX, AX
	JNE	runtime
	MOVL	·processor(SB), BX
	CMPL	BX, $1024
	JCC	runtime
	LEAQ	·one(SB), DX
	BTSL	BX, (DX)
	MOVL	$SYS_sched_setaffinity, AX
	XORL	DI, DI
	MOVL	$128, SI
	SYSCALL
	TESTQ	AX, AX
	JNE	runtime
	MOVQ	R12, ·size(SB)

runtime:
	JMP	_rt0_amd64_linux(SB)
